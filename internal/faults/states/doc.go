// Package states tries calls in every state that a connection can be in: connected, refused, dead,
// silent, slow, leaving, closed. Each call must end within its time, with an error that its
// documentation names, and leave nothing behind. The root's tests try a dozen calls, those of
// internal/faults all of them, over every kind of line.
//
//   - state.go: the states, how a connection gets into them, and what calls may say there.
//   - line.go: how the client reaches the server: plain, TLS, mutual TLS, TLS first, websocket, websocket over TLS.
//   - scene.go: one server, one client, and everything that calls work on.
//   - call.go: what a call is.
//   - client.go: the client's calls, those of streams and consumers among them.
//   - messages.go: acknowledgements.
//   - keyvalue.go: key-value stores, watchers, caches and locks.
//   - objects.go: object stores.
//   - run.go: all calls at once in one state, with their times and errors.
//   - race.go: the race detector slows everything down.
//   - norace.go: and nothing else does.
//   - leak.go: the goroutines that were started by a function.
//   - table.go: states and calls, with the time that each took.
package states
