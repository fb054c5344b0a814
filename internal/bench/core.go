package main

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	natsgo "github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natsext"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

func core() (all []workload) {
	for _, size := range []int{16, 128, 1 << 10, 16 << 10} {
		all = append(all, publishing(size))
	}
	for _, members := range []int{1, 8} {
		all = append(all, delivering(fmt.Sprintf("fan-out 1:%d", members), members, ""))
	}
	return append(all, delivering("queue group of 4", 4, "workers"), requesting(), requestingMany(), connecting(), closing())
}

func publishing(size int) workload {
	data := make([]byte, size)
	return workload{name: "publish, " + bytesText(size), n: min(500_000, 1<<29/size), size: size, line: oneWay, sides: sides{
		"raw": func(r *round) {
			nc, _ := r.raw()
			r.flushed(func() error { return nc.Publish("bench.publish", data) }, nc.Flush)
		},
		"ours": func(r *round) {
			c := r.ours()
			r.flushed(func() error { return c.Publish(r.ctx, "bench.publish", data) }, func() error { return c.Flush(r.ctx) })
		},
		"watermill": func(r *round) {
			nc, _ := r.raw()
			p := r.watermillPublisher(nc, watermillnats.JetStreamConfig{Disabled: true})
			r.flushed(func() error { return p.Publish("bench.publish", message.NewMessage(watermill.NewUUID(), data)) }, nc.Flush)
		},
	}}
}

func (r *round) watermillPublisher(nc *natsgo.Conn, js watermillnats.JetStreamConfig) *watermillnats.Publisher {
	p, err := watermillnats.NewPublisherWithNatsConn(nc, watermillnats.PublisherPublishConfig{
		Marshaler: &watermillnats.NATSMarshaler{}, SubjectCalculator: watermillnats.DefaultSubjectCalculator, JetStream: js,
	}, watermill.NopLogger{})
	r.check(err)
	return p
}

// A watermiller subscribes with watermill over one connection. Each of so many workers does the work for a message, which
// is acknowledged then, and tells that it is handled.
func (r *round) watermiller(queue string, workers int, js watermillnats.JetStreamConfig, work func()) (subscribe func(subject string, handled func())) {
	nc, _ := r.raw()
	s, err := watermillnats.NewSubscriberWithNatsConn(nc, watermillnats.SubscriberSubscriptionConfig{
		Unmarshaler: &watermillnats.NATSMarshaler{}, SubjectCalculator: watermillnats.DefaultSubjectCalculator,
		QueueGroupPrefix: queue, SubscribersCount: workers, JetStream: js, CloseTimeout: time.Second,
	}, watermill.NopLogger{})
	r.check(err)
	r.ends = append(r.ends, func() { _ = s.Close() })
	return func(subject string, handled func()) {
		messages, err := s.Subscribe(r.ctx, subject)
		r.check(err)
		r.check(nc.Flush())
		for range workers {
			go func() {
				for m := range messages {
					work()
					m.Ack()
					handled()
				}
			}()
		}
	}
}

// delivering measures from publish to handler. An operation is a message published; each of the members gets it, or, in
// a queue group, one of them.
func delivering(name string, members int, queue string) workload {
	const size = 128
	copies := int64(members)
	if queue != "" {
		copies = 1
	}
	// deliver publishes, for all sides in the same way, no faster than messages are handled.
	deliver := func(r *round, subscribe func(subject string, handled func())) {
		const window = 4096 // of messages that wait for one subscription
		subject := unique()
		var handled atomic.Int64
		for range members {
			subscribe(subject, func() { handled.Add(1) })
		}
		nc, _ := r.raw()
		msg := delivered(subject, size)
		lag := func(sent, most int64) {
			for sent*copies-handled.Load() > most*copies {
				r.check(r.ctx.Err())
				time.Sleep(20 * time.Microsecond)
			}
		}
		r.measure(func() {
			for sent := range int64(r.n) {
				r.check(nc.PublishMsg(msg))
				lag(sent, window)
			}
			lag(int64(r.n), 0)
		})
	}
	return workload{name: name, n: 50_000, size: size, line: oneWay, sides: sides{
		"raw": func(r *round) {
			nc, _ := r.raw()
			deliver(r, func(subject string, handled func()) {
				_, err := nc.QueueSubscribe(subject, queue, func(*natsgo.Msg) { handled() })
				r.check(err)
				r.check(nc.Flush())
			})
		},
		"ours": func(r *round) {
			c := r.ours()
			deliver(r, func(subject string, handled func()) {
				h := func(*nats.Message) error { handled(); return nil }
				var err error
				if queue == "" {
					_, err = c.Subscribe(r.ctx, subject, h)
				} else {
					_, err = c.QueueSubscribe(r.ctx, subject, queue, h)
				}
				r.check(err)
			})
		},
		"watermill": func(r *round) {
			deliver(r, r.watermiller(queue, 1, watermillnats.JetStreamConfig{Disabled: true}, func() {}))
		},
	}}
}

// answering has that many responders on a connection of their own.
func (r *round) answering(responders int, data []byte) (subject string) {
	nc, _ := r.raw()
	subject = unique()
	for range responders {
		_, err := nc.Subscribe(subject, func(m *natsgo.Msg) { _ = m.Respond(data) }) // who waits is told by its timeout
		r.check(err)
	}
	r.check(nc.Flush())
	return subject
}

func requesting() workload {
	data := make([]byte, 128)
	return workload{name: "request", n: 10_000, size: len(data), line: roundTrip, sides: sides{
		"raw": func(r *round) {
			nc, _ := r.raw()
			subject := r.answering(1, data)
			r.latencies(func() error { _, err := nc.Request(subject, data, 5*time.Second); return err })
		},
		"ours": func(r *round) {
			c, subject := r.ours(), r.answering(1, data)
			r.latencies(func() error { _, err := c.Request(r.ctx, subject, data, 5*time.Second); return err })
		},
	}}
}

func requestingMany() workload {
	const answers = 4
	data := make([]byte, 128)
	return workload{name: "request, 4 answers", n: 3000, size: len(data), line: roundTrip, sides: sides{
		"raw": func(r *round) {
			nc, _ := r.raw()
			subject := r.answering(answers, data)
			r.latencies(func() error {
				ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
				defer cancel()
				inbox, got := nc.NewInbox(), make(chan *natsgo.Msg, answers) // SubscribeSync makes one of half a MiB
				sub, err := nc.ChanSubscribe(inbox, got)
				if err != nil {
					return err
				}
				defer func() { _ = sub.Unsubscribe() }()
				if err := nc.PublishRequest(subject, inbox, data); err != nil {
					return err
				}
				for range answers {
					select {
					case <-got:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return nil
			})
		},
		"ours": func(r *round) {
			c, subject := r.ours(), r.answering(answers, data)
			r.latencies(func() error {
				return allOf(c.RequestMany(r.ctx, subject, data, nats.WithMaxReplies(answers)), answers)
			})
		},
		"orbit": func(r *round) {
			nc, _ := r.raw()
			subject := r.answering(answers, data)
			r.latencies(func() error {
				ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
				defer cancel()
				all, err := natsext.RequestMany(ctx, nc, subject, data, natsext.RequestManyMaxMessages(answers))
				if err != nil {
					return err
				}
				return allOf(all, answers)
			})
		},
	}}
}

// allOf reads a sequence to its end, and counts.
func allOf[M any](all iter.Seq2[M, error], want int) error {
	got := 0
	for _, err := range all {
		if err != nil {
			return err
		}
		got++
	}
	return whole(got, want)
}

func connecting() workload {
	return workload{name: "connect", n: 200, sides: sides{
		"raw":  func(r *round) { r.each(func() error { r.raw(); return nil }) },
		"ours": func(r *round) { r.each(func() error { r.ours(); return nil }) },
	}}
}

// closing measures a graceful end. An operation is a subscription that is drained.
func closing() workload {
	return workload{name: "close, 10,000 subscriptions", n: 10_000, sides: sides{
		"raw": func(r *round) {
			closed := make(chan struct{})
			nc, err := natsgo.Connect(r.url, natsgo.ClosedHandler(func(*natsgo.Conn) { close(closed) }))
			r.check(err)
			r.ends = append(r.ends, nc.Close)
			for range r.n {
				_, err := nc.Subscribe(unique(), func(*natsgo.Msg) {})
				r.check(err)
			}
			r.check(nc.Flush())
			r.measure(func() {
				r.check(nc.Drain())
				await(r, closed)
			})
		},
		"ours": func(r *round) {
			c := r.ours()
			for range r.n {
				_, err := c.Subscribe(r.ctx, unique(), func(*nats.Message) error { return nil })
				r.check(err)
			}
			r.measure(func() { r.check(c.Close()) })
		},
	}}
}
