// Package discovery asks a resolver for servers, and follows it, without trusting it: it may be a user's,
// and may hang, disregard its context, panic, end its goroutine, end early, or name what is no server.
// None of that keeps a client from starting, from ending, or from following on.
//
// Every call of a resolver runs on a goroutine of its own, which a resolver that disregards its context
// keeps for itself. What it names is used as far as it can be.
//
//   - finder.go: [Finder], which finds the servers of a client and follows its resolver; its [Reports].
//   - resolver.go: [Ask] and [Follow].
//   - servers.go: [Servers], what is known, and [Usable], what of a list can be used.
package discovery
