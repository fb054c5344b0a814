// Package receive is the subscriptions of core NATS: messages that wait for handlers, in an order, up to
// limits, and an end that loses none of them.
//
// A [Subscription] has a queue of its own. Nats.go only puts messages into it, and goroutines that live
// while there is something to do take them out: so a handler never holds nats.go up, may end its
// goroutine, and a subscription that is idle costs what it does in nats.go.
//
// It ends in two steps. First nothing more is received: the server is told and has confirmed it, and
// what it sent before is in the queue. This goes wrong where a connection comes between, for nats.go
// tells the new server of the subscription and forgets it then, and that server gives a queue group's
// share to nobody: so what is being released is forgotten at once when the connection breaks. Then the
// handlers return, or the time is up and the rest is dropped.
//
//   - engine.go: [Engine], how a subscription begins, and what the server refuses.
//   - denied.go: what happens to one that the server denies.
//   - subscription.go: [Subscription], its limits and its workers.
//   - queue.go: the queue.
//   - end.go: the two steps.
//   - slow.go: messages over the limits.
package receive
