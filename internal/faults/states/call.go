package states

import (
	"context"
	"slices"
)

// Kind is what a call needs from the connection.
type Kind int

// The kinds of calls.
const (
	// Local needs nothing, has no context and never waits.
	Local Kind = iota
	// Tells has a context, and no error.
	Tells
	// Sends hands something to the connection, which keeps it while there is no server.
	Sends
	// Ends gives back what was opened, as far as the connection lets it.
	Ends
	// Opens waits for the server's word, but for one of a client that was never connected.
	Opens
	// Asks waits for an answer.
	Asks
	// Stores waits for an answer of JetStream.
	Stores
	// Waits goes on until its context ends, or says earlier why it cannot.
	Waits
)

// Call is one method, called as a user does. Its error is the method's, also where that is an item of a
// sequence or of a future.
type Call struct {
	Name string // "Client.Publish"
	Kind Kind
	// Handle tells that the call works on something that only a connected client can have opened.
	Handle bool
	Do     func(ctx context.Context, s *Scene) error
}

// Calls returns all calls.
func Calls() []Call {
	return slices.Concat(clientCalls, streamCalls, consumerCalls, messageCalls, keyValueCalls, objectCalls)
}

// Some returns the calls of these names. It panics when there is none of a name, for the mistake is the test's.
func Some(names ...string) []Call {
	all := Calls()
	some := make([]Call, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(all, func(c Call) bool { return c.Name == name })
		if i < 0 {
			panic("states: no call " + name)
		}
		some = append(some, all[i])
	}
	return some
}
