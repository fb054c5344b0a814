package ordered

import natsgo "github.com/nats-io/nats.go"

// Consumer returns the name of the present consumer.
func (r *Reader) Consumer() string { return r.name }

// Inbox returns the subscription that the consumer delivers to.
func (r *Reader) Inbox() *natsgo.Subscription { return r.sub }

// Received returns what has come and was not looked at yet.
func (r *Reader) Received() chan *natsgo.Msg { return r.received }

// Names returns how many consumers may have been made without an answer.
func (r *Reader) Names() int { return len(r.names) }

// Ask makes a question for a consumer that is never sent.
func (r *Reader) Ask() { _ = r.question() }
