// Package jsapi is how the servers of JetStream are asked: once, and again when nothing is heard.
//
// A question is a message whose answer is waited for over lost answers, elections and broken connections. All
// its sendings have one reply subject, so a late answer counts, and those that wait for one queue of a server
// ask again as rarely as the pace of their connection has it. What ends it early is an answer, a refusal, the
// denial of its subject, and, for what a stream should store, that no stream does.
//
//   - api.go: [API], its prefix and upstream's handle on it.
//   - ask.go: [Send], [API.Ask] and [API.Stored], which ask.
//   - info.go: [API.StreamInfo], [API.Subjects] and [API.ConsumerInfo], the questions that many have.
//   - streams.go: [API.Streams], [API.Purge] and [API.Overlap].
//   - consumers.go: what a consumer's configuration may be, and [API.CreateConsumer].
//   - confirm.go: [API.Confirm], for acknowledgements.
//   - batch.go: [API.LastOf], which asks for many messages at once (ADR-31).
//   - look.go: [Look] and [Open], for what upstream asks.
//   - finder.go: [API.Hopeless], whether a stream stores a subject at all.
//   - window.go: [API.Window], for how long a stream knows a message, and [API.MaxAge].
//   - trace.go: whether another account's stream may store it.
//   - passing.go: the refusals that pass.
package jsapi
