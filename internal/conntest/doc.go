// Package conntest is what the tests of connections, and of the engines that stand on one, have in common.
//
//   - open.go: [Open], which opens one, [Raw], which opens one of nats.go, and [Within], a time for calls.
//   - forward.go: [Forward], a JetStream API of which a test says what reaches it.
//   - words.go: [Words], which records reports.
//   - authority.go: [Authority], for TLS.
//   - serve.go: [Serve], for what servers and machines in the middle do wrong.
//   - stalls.go: [Stalls], which knows when the machine held the process up.
package conntest
