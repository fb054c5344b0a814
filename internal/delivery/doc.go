// Package delivery is a delivery without a server, for tests of handlers.
//
// natstest makes a [Record] and puts it into a message's context, where Message.WithContext finds it. From then on
// the message is one that a consumer has delivered, and the Record hears what the server would be told.
// A context, and no function of the public package, carries it, for nobody but natstest has a use for it.
//
//   - record.go: Record.
package delivery
