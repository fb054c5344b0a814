// Package consume handles the messages of a consumer, each until it is acknowledged, or dead.
//
// A [Consumption] keeps pulls open, in sessions: whatever is wrong with the consumer, its stream, a server or the
// connection, the session ends and another one begins, with an inbox of its own. What comes is a [Delivery], which is
// held from then on: ready for a worker, running in one, or waiting for its next try. While it is held the server is told
// so, that it may deliver the message to nobody else. One lock guards all that is held; a handler runs without it.
//
// A message that fails is asked for again later, in its place, and the server hears of it in bursts. Two streams beside
// the message's own take copies of it: one holds messages that wait long, where that is asked for, and the other one dead
// ones. The original ends when its copy is stored, not before.
//
// The end costs no delivery where there are few: what was fetched is handled, and otherwise handed back.
//
// The consumer is what the server says that it is: its rules are learnt when it is found, and again when a handler
// takes its time or fails.
//
//   - engine.go: [Engine], what it asks of its [Host], and what it [Reports].
//   - consumption.go: [Consumption], its workers, and what becomes of a message.
//   - held.go: [Delivery], and the list of what is held.
//   - extend.go: keeping from others what is held here.
//   - pace.go: how much is fetched ahead.
//   - puller.go: session after session.
//   - session.go: pulls over one inbox, and their silence.
//   - crossing.go: two inboxes at once, and the order of what comes.
//   - own.go: the consumer, found or made again, and what it must not get.
//   - rules.go: what the consumer says, and how many messages wait for their next try there.
//   - retry.go: what failed: when it is tried again, and when it is dead.
//   - naks.go: asking for messages again later, in bursts.
//   - park.go: the retry stream.
//   - side.go: streams that take copies.
//   - deadletter.go: dead letters.
//   - replay.go: [Engine.Replay].
//   - stop.go: the graceful end.
//   - report.go: what a Consumption says of itself.
package consume
