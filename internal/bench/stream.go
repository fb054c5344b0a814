package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

const streamSize = 128

func streams() (all []workload) {
	for _, callers := range []int{1, 16, 256, 2000} {
		all = append(all, storing(callers, true), storing(callers, false))
	}
	all = append(all, batch(), atomically())
	for _, work := range []time.Duration{0, 200 * time.Microsecond} {
		for _, workers := range []int{1, 16} {
			all = append(all, consuming(work, workers))
		}
	}
	return append(all, pulling())
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ids makes message IDs as cheaply as one can.
func ids() func() string {
	prefix := rand.Text()[:16] + "."
	var n atomic.Uint64
	return func() string { return prefix + strconv.FormatUint(n.Add(1), 36) }
}

// storing waits for every acknowledgement.
func storing(callers int, withID bool) workload {
	data := make([]byte, streamSize)
	name := "stream publish, " + several(callers, "caller")
	if !withID {
		name += ", no ID"
	}
	n := 20_000
	if callers == 1 {
		n = 5000
	}
	return workload{name: name, n: n, size: streamSize, line: roundTrip, sides: sides{
		"raw": func(r *round) {
			_, js := r.raw()
			stream, id := r.stream(), ids()
			r.callers(callers, func() (err error) {
				if withID {
					_, err = js.Publish(r.ctx, stream, data, jetstream.WithMsgID(id()))
				} else {
					_, err = js.Publish(r.ctx, stream, data)
				}
				return err
			})
		},
		"ours": func(r *round) {
			c, stream := r.ours(), r.stream()
			r.callers(callers, func() (err error) {
				if withID {
					_, err = c.PublishToStream(r.ctx, stream, data)
				} else {
					_, err = c.PublishToStream(r.ctx, stream, data, nats.WithoutMessageID())
				}
				return err
			})
		},
		"watermill": func(r *round) {
			nc, _ := r.raw()
			stream := r.stream()
			p := r.watermillPublisher(nc, watermillnats.JetStreamConfig{TrackMsgId: withID})
			r.callers(callers, func() error { return p.Publish(stream, message.NewMessage(watermill.NewUUID(), data)) })
		},
	}}
}

func batch() workload {
	const size = 1000
	data := make([]byte, streamSize)
	return workload{name: "stream publish, batches of 1,000", n: 50_000, size: streamSize, line: oneWay, sides: sides{
		"raw": func(r *round) {
			_, js := r.raw()
			stream, id := r.stream(), ids()
			futures := make([]jetstream.PubAckFuture, 0, size)
			r.inBatches(size, func(n int) {
				futures = futures[:0]
				for range n {
					future, err := js.PublishAsync(stream, data, jetstream.WithMsgID(id()), jetstream.WithStallWait(time.Minute))
					r.check(err)
					futures = append(futures, future)
				}
				for _, future := range futures {
					select {
					case <-future.Ok():
					case err := <-future.Err():
						r.check(err)
					case <-r.ctx.Done():
						r.check(context.Cause(r.ctx))
					}
				}
			})
		},
		"ours": func(r *round) {
			c, stream := r.ours(), r.stream()
			msgs := make([]*nats.Message, size)
			for i := range msgs {
				msgs[i] = &nats.Message{Subject: stream, Data: data}
			}
			r.inBatches(size, func(n int) {
				_, err := c.PublishBatch(r.ctx, msgs[:n])
				r.check(err)
			})
		},
		"orbit": func(r *round) {
			_, js := r.raw()
			stream, id := r.stream(), ids()
			r.inBatches(size, func(n int) {
				publisher, err := jetstreamext.NewFastPublisher(js)
				r.check(err)
				msgs := withIDs(stream, id, n)
				for _, msg := range msgs[:n-1] {
					_, err := publisher.AddMsg(msg)
					r.check(err)
				}
				ack, err := publisher.CommitMsg(r.ctx, msgs[n-1])
				r.check(err)
				r.check(whole(int(ack.BatchSize), n))
			})
		},
	}}
}

// inBatches measures n operations, of which do does several at once.
func (r *round) inBatches(size int, do func(n int)) {
	r.measure(func() {
		for left := r.n; left > 0; left -= size {
			do(min(size, left))
		}
	})
}

// withIDs are the messages of a batch, with IDs, as ours gives them.
func withIDs(stream string, id func() string, n int) []*natsgo.Msg {
	msgs, data := make([]*natsgo.Msg, n), make([]byte, streamSize)
	for i := range msgs {
		msgs[i] = &natsgo.Msg{Subject: stream, Header: natsgo.Header{jetstream.MsgIDHeader: {id()}}, Data: data}
	}
	return msgs
}

// atomically waits for the answers to the first of a batch, so that what is refused is so before it is sent, and to the last.
func atomically() workload {
	const size = 100
	data := make([]byte, streamSize)
	return workload{name: "stream publish, all or none of 100", n: 20_000, size: streamSize, line: oneWay, sides: sides{
		"raw": func(r *round) {
			nc, _ := r.raw()
			stream, id := r.stream(), ids()
			r.inBatches(size, func(n int) {
				batch := id()
				for i, msg := range withIDs(stream, id, n) {
					msg.Header["Nats-Batch-Id"] = []string{batch}
					msg.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
					if i > 0 && i < n-1 {
						r.check(nc.PublishMsg(msg))
						continue
					}
					if i == n-1 {
						msg.Header["Nats-Batch-Commit"] = []string{"1"}
					}
					answer, err := nc.RequestMsg(msg, 5*time.Second)
					r.check(err)
					if bytes.Contains(answer.Data, []byte(`"error"`)) {
						r.check(errors.New(string(answer.Data)))
					}
				}
			})
		},
		"ours": func(r *round) {
			c, stream := r.ours(), r.stream()
			msgs := make([]*nats.Message, size)
			for i := range msgs {
				msgs[i] = &nats.Message{Subject: stream, Data: data}
			}
			r.inBatches(size, func(n int) {
				_, err := c.PublishAtomic(r.ctx, msgs[:n])
				r.check(err)
			})
		},
		"orbit": func(r *round) {
			_, js := r.raw()
			stream, id := r.stream(), ids()
			r.inBatches(size, func(n int) {
				_, err := jetstreamext.PublishMsgBatch(r.ctx, js, withIDs(stream, id, n))
				r.check(err)
			})
		},
	}}
}

// consuming measures from the start of a consumer to the last acknowledgement; work is what a handler waits for.
func consuming(work time.Duration, workers int) workload {
	name := "consume, no work, " + several(workers, "worker")
	n := 50_000
	if work > 0 {
		name = fmt.Sprintf("consume, %d µs of work, %s", work.Microseconds(), several(workers, "worker"))
		n = 500 * workers
	}
	wait := func() {
		if work > 0 {
			time.Sleep(work)
		}
	}
	return workload{name: name, n: n, size: streamSize, line: oneWay, sides: sides{
		"raw": func(r *round) {
			_, js := r.raw()
			stream := r.filled()
			consumer, err := js.Consumer(r.ctx, stream, stream)
			r.check(err)
			r.counted(func(handled func()) {
				handle := func(m jetstream.Msg) {
					wait()
					if m.Ack() == nil { // what is not acknowledged is missed at the end
						handled()
					}
				}
				h := handle
				if workers > 1 {
					queue := make(chan jetstream.Msg, workers)
					ctx, cancel := context.WithCancel(r.ctx)
					r.ends = append(r.ends, cancel)
					for range workers {
						go func() {
							for {
								select {
								case m := <-queue:
									handle(m)
								case <-ctx.Done():
									return
								}
							}
						}()
					}
					h = func(m jetstream.Msg) {
						select {
						case queue <- m:
						case <-ctx.Done():
						}
					}
				}
				consuming, err := consumer.Consume(h)
				r.check(err)
				r.ends = append(r.ends, consuming.Stop)
			})
		},
		"ours": func(r *round) {
			c, stream := r.ours(), r.filled()
			r.counted(func(handled func()) {
				consumption, err := c.Consume(r.ctx, stream, stream, func(*nats.Message) error {
					wait()
					handled()
					return nil
				}, nats.WithWorkers(workers))
				r.check(err)
				r.atEnd(consumption.Stop)
			})
		},
		"watermill": func(r *round) {
			stream, group := r.filled(), ""
			if workers > 1 {
				group = unique()
			}
			const ahead = 64 // or the first of its workers is given all there is
			subscribe := r.watermiller(group, workers, watermillnats.JetStreamConfig{AckAsync: true, SubscribeOptions: []natsgo.SubOpt{
				natsgo.DeliverAll(), natsgo.AckExplicit(), natsgo.MaxAckPending(ahead),
			}}, wait)
			r.counted(func(handled func()) { subscribe(stream, handled) })
		},
	}}
}

// pulling measures a message of a batch of 500 and its acknowledgement.
func pulling() workload {
	const size = 500
	return workload{name: "pull, batches of 500", n: 20_000, size: streamSize, line: oneWay, sides: sides{
		"raw": func(r *round) {
			_, js := r.raw()
			stream := r.filled()
			consumer, err := js.Consumer(r.ctx, stream, stream)
			r.check(err)
			r.inBatches(size, func(n int) {
				pulled, err := consumer.Fetch(n)
				r.check(err)
				got := 0
				for m := range pulled.Messages() {
					r.check(m.Ack())
					got++
				}
				r.check(whole(got, n))
			})
		},
		"ours": func(r *round) {
			c, stream := r.ours(), r.filled()
			r.inBatches(size, func(n int) {
				for left := n; left > 0; { // it takes what is there
					pulled, err := c.PullMessages(r.ctx, stream, stream, left)
					r.check(err)
					for _, m := range pulled {
						r.check(m.Ack())
					}
					left -= len(pulled)
				}
			})
		},
	}}
}

// whole is an error when not everything has come.
func whole(got, want int) error {
	if got != want {
		return fmt.Errorf("%d instead of %d", got, want)
	}
	return nil
}
