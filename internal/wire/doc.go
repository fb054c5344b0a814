// Package wire is what NATS says on the wire, in one place: how long its lines are.
//
//   - line.go: the length of a control line, as the server counts it.
package wire
