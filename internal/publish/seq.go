package publish

import (
	"iter"

	"github.com/nats-io/nats.go/jetstream"
)

// ahead bounds how many results are held back behind one that is not there yet.
const ahead = 8 * MostMessages

// flight is a message that was sent, or why it could not be.
type flight struct {
	future *Future
	err    error
}

// Seq starts msgs one after the other, as there is room for them, and yields their results in the same order.
func Seq[M any](msgs iter.Seq[M], start func(M) (*Future, error)) iter.Seq2[*jetstream.PubAck, error] {
	return func(yield func(*jetstream.PubAck, error) bool) {
		var queue []flight // in the order of msgs
		// land yields the results at the head of the queue: those that are there, and as many more as
		// it takes to leave no more than limit.
		land := func(limit int) bool {
			for len(queue) > 0 {
				ack, err := (*jetstream.PubAck)(nil), queue[0].err
				if future := queue[0].future; future != nil {
					var there bool
					if ack, err, there = future.Result(len(queue) > limit); !there {
						break
					}
				}
				queue[0] = flight{}
				queue = queue[1:]
				if !yield(ack, err) {
					return false
				}
			}
			return true
		}
		for msg := range msgs {
			future, err := start(msg)
			queue = append(queue, flight{future, err})
			if !land(ahead) {
				return
			}
		}
		land(0)
	}
}
