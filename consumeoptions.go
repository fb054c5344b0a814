package nats

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
)

// ConsumeOption changes what Consume does.
type ConsumeOption func(*consumeOptions)

type consumeOptions struct {
	consume.Options
	keyOf func(*Message) string
}

// WithWorkers handles up to n messages at once. What is fetched ahead is sized from n and from how
// fast the handlers are, so that instances share the work evenly. The default, and the meaning of an
// n below 2, is one at a time, in the order in which the server delivers.
func WithWorkers(n int) ConsumeOption {
	return func(o *consumeOptions) { o.Workers = n }
}

// WithKey keeps messages of the same key in order while WithWorkers handles different keys at once.
// The order also holds while a message is retried: it stays here, and those of its key behind it
// wait, until it is handled or dead. While they wait they count against the consumer's
// MaxAckPending, so a key that fails for ever ends up stopping the others: give WithMaxDeliver too.
// The order is that of one Consumption; other instances on the same consumer have their own. The
// key function must not block, and may be called from two goroutines at once.
func WithKey(key func(*Message) string) ConsumeOption {
	return func(o *consumeOptions) { o.keyOf = key }
}

// WithBackoff sets how long a message waits before it is delivered again after its first, second,
// and further failures; the last delay repeats. Every delay is varied by up to a fifth, so that
// messages that failed together do not return together. The default is 1 s, 5 s, 30 s, 2 min and
// 10 min. A delay below 10 ms is 10 ms.
func WithBackoff(delays ...time.Duration) ConsumeOption {
	return func(o *consumeOptions) { o.BackOff = slices.Clone(delays) }
}

// WithMaxDeliver moves a message to the dead letters when its nth delivery fails; a negative n is without
// end. The default, and the meaning of 0, is the consumer's own MaxDeliver. Where it has none either, a message
// is dead after 25 deliveries and 24 hours since it was stored, both. But for a negative n, it is dead as well
// when its stream would delete it, by MaxAge or its own TTL, before its next try.
//
// A message that kills its workers goes there unhandled when it comes again after 2n deliveries, or n+5
// if that is more, unless it is younger than n of the consumer's ack waits, in which so many cannot have died:
// the server counts what is handed back, or cut short by the end of a Consumption, as it counts deaths, and
// neither may bury what nobody has tried. With a retry stream n are enough, for it takes those back. A MaxDeliver of the consumer itself is best left unset: when a
// worker dies on the last delivery, the server drops the message and nobody hears of it.
func WithMaxDeliver(n int) ConsumeOption {
	return func(o *consumeOptions) { o.MaxDeliver = n }
}

// WithMaxHandling bounds for how long a message is kept from being delivered to others while its
// handler runs. After that, and one AckWait more, the server delivers it again, although the handler
// still runs. Zero or less means the default, ten times the consumer's AckWait.
func WithMaxHandling(d time.Duration) ConsumeOption {
	return func(o *consumeOptions) { o.MaxHandling = max(d, 0) }
}

// WithDeadLetter publishes dead letters to subject instead of "dlq.<stream>.<consumer>". Whatever
// stream stores that subject receives them; when none does, the stream "<stream>_DLQ" is made to.
func WithDeadLetter(subject string) ConsumeOption {
	return func(o *consumeOptions) { o.DeadLetters = subject }
}

// WithConfirmedAcks waits for the server to confirm every acknowledgement before the next message
// is handled. A handler's effect and its acknowledgement then differ only when the server could not
// be asked; that is logged, counted in ConsumeStats.Unconfirmed, and the message comes again.
func WithConfirmedAcks() ConsumeOption {
	return func(o *consumeOptions) { o.Confirmed = true }
}

// WithRetryStream lets a message leave its place while it waits for its next try: when it waits for more than
// 10 s, or when a quarter of the consumer's MaxAckPending waits already, over all instances. It is stored
// in the work queue "<stream>_RETRY" (subject "retry.<stream>.<consumer>", in a JetStream domain
// "retry.<domain>.<stream>.<consumer>"), acknowledged, and handled from there when its time has come. The handler
// sees it as it was: subject, headers, payload and Metadata. It loses its place in the order and survives a
// purge of its stream, but neither a MaxAge nor a TTL, nor a filter of the consumer that leaves it out; and it
// waits while the consumer is paused.
//
// Consume makes the stream, with the replicas, storage, placement and compression of the other, and the consumer
// in it, unless they are there, and fails where it may not or where that subject cannot be stored. Kept in their
// place are messages of WithKey, of a consumer with a MaxAckPending of 1 or with headers only, and those that
// have no room for more headers.
//
// A Consume without this option looks once, when it begins, for what an earlier one has left in the retry
// stream, and handles that: EventRetriesLeft. So let the last instance with the option end before.
func WithRetryStream() ConsumeOption {
	return func(o *consumeOptions) { o.Retries = true }
}

// WithConsumerConfig makes the consumer the Consumption's own: Consume creates it from cfg, durable
// as with CreateConsumer, unless it exists, and creates it again whenever it is gone. It then goes on
// after the messages that are known to be acknowledged, which is looked up every 5 s, and begins as
// cfg says when none are, or when the stream is a new one. Cfg's Name may be empty or must be the
// consumer's; cfg is copied. Without this option the consumer belongs to somebody else, and Consume
// waits until it is back.
func WithConsumerConfig(cfg *jetstream.ConsumerConfig) ConsumeOption {
	return func(o *consumeOptions) {
		if cfg != nil {
			own := *cfg
			o.Own = &own
		}
	}
}
