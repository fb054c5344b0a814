// Package publish stores messages in streams, each once.
//
// A message has an ID, by which the stream knows it again, and is sent until it is stored or refused, or its time
// is over: by [Publisher.Store], which waits, or [Publisher.Start], which costs no goroutine while all goes well.
// Both are calls of package conn, so that an answer counts however late it comes, and the calls to one queue of
// a server ask again at one pace. What is refused only because an earlier sending of the same message is stored
// counts as stored.
//
//   - publisher.go: [Publisher], and the IDs.
//   - headers.go: [Publisher.Message], what a header may say, and upstream's options.
//   - schedule.go: schedules that would lose messages.
//   - store.go: [Publisher.Store], and what became of a message that is in doubt.
//   - flight.go: [Publisher.Start], and how much is in flight.
//   - future.go: [Future], one message in flight.
//   - seq.go: [Seq], many in flight, and their results in order.
//   - hooks.go: [Publisher.Publish], and what stands around the messages of users.
//   - atomic.go: [Publisher.Atomic], all messages or none.
package publish
