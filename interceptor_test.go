package nats_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// trail notes what interceptors see, in order.
type trail struct {
	mu    sync.Mutex
	steps []string
}

func (l *trail) note(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, step)
}

// take returns what was noted since, once there are so many steps.
func (l *trail) take(t testing.TB, n int) []string {
	t.Helper()
	eventually(t, fmt.Sprint(n, " steps"), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.steps) >= n
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	steps := l.steps
	l.steps = nil
	return steps
}

// interceptor notes every call under a name.
func (l *trail) interceptor(name string) nats.Interceptor {
	return nats.Interceptor{
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			l.note(name + ": publish " + msg.Subject)
			defer l.note(name + ": published " + msg.Subject)
			return next(ctx, msg)
		},
		Stored: func(_ context.Context, msg *nats.Message, ack *jetstream.PubAck, err error) {
			l.note(fmt.Sprint(name, ": stored ", msg.Subject, " ", ack != nil, " ", err))
		},
		Request: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) (*nats.Message, error)) (*nats.Message, error) {
			l.note(name + ": request " + msg.Subject)
			defer l.note(name + ": answered " + msg.Subject)
			return next(ctx, msg)
		},
		Handle: func(msg *nats.Message, next nats.Handler) error {
			l.note(name + ": handle " + msg.Subject)
			defer l.note(name + ": handled " + msg.Subject)
			return next(msg)
		},
	}
}

// Every path that a message takes, and the order in which two interceptors see it.
func TestInterceptorPaths(t *testing.T) {
	t.Parallel()
	var seen trail
	client := connect(t, natstest.RunServer(t), nil,
		nats.WithInterceptor(seen.interceptor("outer")), nats.WithInterceptor(seen.interceptor("inner")))
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	kv, err := client.CreateKeyValue(ctx, "settings")
	require.NoError(t, err)
	store, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS_DLQ", Subjects: []string{"dlq.ORDERS.*"}})
	require.NoError(t, err)

	around := func(what, subject, done string) []string {
		return []string{
			"outer: " + what + " " + subject, "inner: " + what + " " + subject,
			"inner: " + done + " " + subject, "outer: " + done + " " + subject,
		}
	}
	published := func(subject string) []string { return around("publish", subject, "published") }
	stored := func(subject string) []string {
		return slices.Insert(published(subject), 2, "inner: stored "+subject+" true <nil>", "outer: stored "+subject+" true <nil>")
	}
	msg := func(subject string) *nats.Message { return &nats.Message{Subject: subject, Data: []byte("1")} }
	all := slices.Concat[[]string]

	for _, path := range []struct {
		name string
		call func() error
		want []string
		some bool // in any order
	}{
		{"Publish", func() error { return client.Publish(ctx, "a", nil) }, published("a"), false},
		{"PublishMsg", func() error { return client.PublishMsg(ctx, msg("a")) }, published("a"), false},
		{"PublishJSON", func() error { return client.PublishJSON(ctx, "a", 1) }, published("a"), false},
		{"PublishWithReply", func() error { return client.PublishWithReply(ctx, "a", "b", nil) }, published("a"), false},
		{"PublishToStream", func() error { _, err := client.PublishToStream(ctx, "orders.1", nil); return err }, stored("orders.1"), false},
		{"PublishMsgToStream", func() error { _, err := client.PublishMsgToStream(ctx, msg("orders.1")); return err }, stored("orders.1"), false},
		{"PublishJSONToStream", func() error { _, err := client.PublishJSONToStream(ctx, "orders.1", 1); return err }, stored("orders.1"), false},
		{"PublishAsync", func() error {
			future, err := client.PublishAsync(ctx, msg("orders.1"))
			if err == nil {
				<-future.Ok()
			}
			return err
		}, stored("orders.1"), true},
		{"PublishBatch", func() error {
			_, err := client.PublishBatch(ctx, []*nats.Message{msg("orders.1"), msg("orders.2")})
			return err
		}, all(stored("orders.1"), stored("orders.2")), true},
		{"PublishSeq", func() error {
			for _, err := range client.PublishSeq(ctx, slices.Values([]*nats.Message{msg("orders.1")})) {
				return err
			}
			return nil
		}, stored("orders.1"), true},
		{"PublishAtomic", func() error {
			_, err := client.PublishAtomic(ctx, []*nats.Message{msg("orders.1"), msg("orders.2")})
			return err
		}, all(published("orders.1"), published("orders.2"), stored("orders.1")[2:4], stored("orders.2")[2:4]), false},
		{"Subscribe and Request", func() error {
			sub, err := client.Subscribe(ctx, "ask", func(msg *nats.Message) error { return msg.Respond(nil) })
			if err == nil {
				_, err = client.Request(ctx, "ask", nil, 0)
				_ = sub.Drain(ctx)
			}
			return err
		}, nil, false},
		{"RequestMany", func() error {
			sub, err := client.Conn().Subscribe("ask", func(m *natsgo.Msg) { _ = m.Respond(nil) })
			if err != nil {
				return err
			}
			for _, err = range client.RequestMany(ctx, "ask", nil, nats.WithMaxReplies(1)) {
				_ = sub.Unsubscribe()
			}
			return err
		}, published("ask"), false},
		{"GetMessage", func() error { _, err := client.GetMessage(ctx, "ORDERS", 1); return err }, nil, false},
		{"PullMessages", func() error {
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "puller"})
			_, err := client.PullMessages(ctx, "ORDERS", "puller", 1)
			return err
		}, nil, false},
		{"ReadStream", func() error {
			for _, err := range client.ReadStream(ctx, "ORDERS") {
				return err
			}
			return nil
		}, nil, false},
		{"Messages", func() error {
			go func() {
				for client.Stats().Subscriptions == 0 && ctx.Err() == nil {
					runtime.Gosched()
				}
				_ = client.Conn().Publish("ranged", nil)
			}()
			for _, err := range client.Messages(ctx, "ranged") {
				return err
			}
			return nil
		}, nil, false},
		{"KeyValue", func() error { _, err := kv.Put(ctx, "a", nil); return err }, nil, false},
		{"ObjectStore", func() error { _, err := store.PutBytes(ctx, "a", make([]byte, 300_000)); return err }, nil, false},
		{"Consume, a retry, a dead letter", func() error {
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", DeliverPolicy: jetstream.DeliverNewPolicy, FilterSubject: "orders.9"})
			consume(t, client, func(*nats.Message) error { return errPoison }, nats.WithMaxDeliver(2), nats.WithBackoff(time.Millisecond))
			_, err := client.PublishToStream(ctx, "orders.9", nil)
			eventually(t, "a dead letter", func() bool { return client.Stats().DeadLettered == 1 })
			return err
		}, all(stored("orders.9"), around("handle", "orders.9", "handled"), around("handle", "orders.9", "handled"), stored("dlq.ORDERS.worker")), true},
		{"a retry that waits in a stream of its own", func() error {
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "patient", DeliverPolicy: jetstream.DeliverNewPolicy, FilterSubject: "orders.8"})
			consumption, err := client.Consume(ctx, "ORDERS", "patient", func(*nats.Message) error {
				return nats.RetryAfter(errPoison, time.Hour)
			}, nats.WithRetryStream())
			if err != nil {
				return err
			}
			_, err = client.PublishToStream(ctx, "orders.8", nil)
			eventually(t, "it is parked", func() bool { return consumption.Stats().Parked == 1 })
			return errors.Join(err, consumption.Stop(ctx))
		}, all(stored("orders.8"), around("handle", "orders.8", "handled")), true},
		{"ReplayDeadLetters", func() error {
			n, err := client.ReplayDeadLetters(ctx, "ORDERS")
			assert.Equal(t, 1, n)
			eventually(t, "a dead letter", func() bool { return client.Stats().DeadLettered == 2 })
			return err
		}, all(stored("orders.9"), around("handle", "orders.9", "handled"), around("handle", "orders.9", "handled"), stored("dlq.ORDERS.worker")), true},
	} {
		require.NoError(t, path.call(), path.name)
		got := seen.take(t, len(path.want))
		if path.name == "Subscribe and Request" {
			require.Len(t, got, 12)
			assert.Equal(t, []string{"outer: request ask", "inner: request ask", "outer: handle ask", "inner: handle ask"}, got[:4])
			assert.Regexp(t, "^outer: publish _INBOX", got[4]) // the answer
			assert.Subset(t, got, []string{"outer: handled ask", "inner: handled ask", "inner: answered ask", "outer: answered ask"})
			continue
		}
		if path.some {
			assert.ElementsMatch(t, path.want, got, path.name)
		} else {
			assert.Equal(t, path.want, got, path.name)
		}
	}
}

// publishWith returns an interceptor whose Publish does no more than to change the message.
func publishWith(change func(*nats.Message)) nats.Interceptor {
	return nats.Interceptor{Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
		change(msg)
		return next(ctx, msg)
	}}
}

// What an interceptor adds arrives, and the caller's message is left alone.
func TestInterceptorChanges(t *testing.T) {
	t.Parallel()
	var ids trail
	client := connect(t, natstest.RunServer(t), nil, nats.WithInterceptor(publishWith(func(msg *nats.Message) {
		ids.note(msg.Header.Get(jetstream.MsgIDHeader))
		msg.Header.Del(jetstream.MsgIDHeader)
		msg.Header.Add("Trace", "2")
		msg.Header["Own"][0] = "changed"
		msg.Data = append([]byte("more "), msg.Data...)
	})))
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	traces := make([]string, 1, 4) // with room, so that an append would write into it
	traces[0] = "1"
	msg := &nats.Message{Subject: "orders.1", Header: natsgo.Header{"Trace": traces, "Own": {"mine"}}, Data: []byte("data")}
	_, err = client.PublishMsgToStream(ctx, msg)
	require.NoError(t, err)
	future, err := client.PublishAsync(ctx, msg)
	require.NoError(t, err)
	<-future.Ok()
	assert.Equal(t, "more data", string(future.Msg().Data))
	_, err = client.PublishBatch(ctx, []*nats.Message{msg})
	require.NoError(t, err)
	_, err = client.PublishAtomic(ctx, []*nats.Message{msg, msg})
	require.NoError(t, err)
	_, err = client.PublishMsgToStream(ctx, msg, nats.WithoutMessageID())
	require.NoError(t, err)
	require.NoError(t, client.PublishMsg(ctx, msg)) // which the stream stores, too

	assert.Equal(t, &nats.Message{Subject: "orders.1", Header: natsgo.Header{"Trace": {"1"}, "Own": {"mine"}}, Data: []byte("data")}, msg)
	assert.Empty(t, traces[:2][1])
	stored := make([]string, 0, 7)
	eventually(t, "all are stored", func() bool {
		info, err := client.GetStreamInfo(ctx, "ORDERS")
		return err == nil && info.State.Msgs == 7
	})
	for got, err := range client.ReadStream(ctx, "ORDERS") {
		require.NoError(t, err)
		assert.Equal(t, "more data", string(got.Data))
		assert.Equal(t, []string{"1", "2"}, got.Header["Trace"])
		assert.Equal(t, []string{"changed"}, got.Header["Own"])
		stored = append(stored, got.Header.Get(jetstream.MsgIDHeader))
	}
	assert.Equal(t, ids.take(t, 7), stored, "an ID stays, or the message might be stored twice")
	assert.Equal(t, []string{"", ""}, stored[5:], "where there is none, none is made")
}

// What an interceptor makes invalid is refused as by the call, on every path, and nothing is sent.
func TestInterceptorInvalid(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	newStream(t, connect(t, s, nil), 0)
	broken := errors.New("refused by the interceptor")
	for _, wrong := range []struct {
		name   string
		want   error
		change nats.Interceptor
		core   bool
	}{
		{"subject", nats.ErrInvalidSubject, publishWith(func(msg *nats.Message) { msg.Subject = "a b" }), true},
		{"wildcard", nats.ErrInvalidSubject, publishWith(func(msg *nats.Message) { msg.Subject = "orders.*" }), true},
		{"header", nats.ErrInvalidHeader, publishWith(func(msg *nats.Message) { msg.Header.Set("a", "x\r\ny") }), true},
		{"size", nats.ErrPayloadTooLarge, publishWith(func(msg *nats.Message) { msg.Data = make([]byte, 2<<20) }), true},
		{"command", nats.ErrReservedHeader, publishWith(func(msg *nats.Message) { msg.Header.Set("Nats-Rollup", "all") }), false},
		{"error", broken, nats.Interceptor{Publish: func(context.Context, *nats.Message, func(context.Context, *nats.Message) error) error {
			return broken
		}}, true},
		{"panic", nats.ErrHandlerPanic, publishWith(func(*nats.Message) { panic("no") }), true},
		{"no-message", nats.ErrInvalidArgument, nats.Interceptor{Publish: func(ctx context.Context, _ *nats.Message, next func(context.Context, *nats.Message) error) error {
			return next(ctx, nil)
		}}, true},
		{"no-context", nats.ErrInvalidArgument, nats.Interceptor{Publish: func(_ context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			return next(nil, msg)
		}}, true},
		{"not-passed-on", nats.ErrInvalidArgument, nats.Interceptor{Publish: func(context.Context, *nats.Message, func(context.Context, *nats.Message) error) error {
			return nil
		}}, false},
		{"swallowed", nats.ErrInvalidSubject, nats.Interceptor{Publish: func(ctx context.Context, _ *nats.Message, next func(context.Context, *nats.Message) error) error {
			_ = next(ctx, &nats.Message{Subject: "a b"})
			return nil
		}}, false},
	} {
		t.Run(wrong.name, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			client := connect(t, s, nil, nats.WithInterceptor(wrong.change), nats.WithLogger(log.logger()))
			ctx := within(t, time.Minute)
			msg := &nats.Message{Subject: "orders." + wrong.name, Data: []byte("1")}
			if wrong.core {
				require.ErrorIs(t, client.PublishMsg(ctx, msg), wrong.want)
			}
			_, err := client.PublishMsgToStream(ctx, msg)
			require.ErrorIs(t, err, wrong.want)
			future, err := client.PublishAsync(ctx, msg)
			require.ErrorIs(t, err, wrong.want)
			require.Nil(t, future)
			_, err = client.PublishBatch(ctx, []*nats.Message{msg, msg})
			require.ErrorIs(t, err, wrong.want)
			_, err = client.PublishAtomic(ctx, []*nats.Message{msg, msg})
			require.ErrorIs(t, err, wrong.want)
			assert.Zero(t, client.Stats().Sent)
			assert.Equal(t, wrong.name == "panic", strings.Contains(log.String(), "an interceptor panicked") && strings.Contains(log.String(), "stack="))
			info, err := client.GetStreamInfo(ctx, "ORDERS")
			require.NoError(t, err)
			assert.Zero(t, info.State.Msgs)
		})
	}
}

// A request's interceptor may change the question, answer in its place, and refuse; the timeout holds over it.
func TestInterceptorRequest(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	answering := connect(t, s, nil)
	_, err := answering.Subscribe(context.Background(), "ask.>", func(msg *nats.Message) error {
		return msg.RespondMsg(&nats.Message{Data: []byte(msg.Header.Get("Trace"))})
	})
	require.NoError(t, err)
	type next = func(context.Context, *nats.Message) (*nats.Message, error)
	client := connect(t, s, nil, nats.WithInterceptor(nats.Interceptor{
		Request: func(ctx context.Context, msg *nats.Message, next next) (*nats.Message, error) {
			switch msg.Subject {
			case "ask.cached":
				return &nats.Message{Data: []byte("from the cache")}, nil
			case "ask.nothing":
				return nil, nil
			case "ask.panic":
				panic("no")
			case "ask.slow":
				<-ctx.Done()
				return next(ctx, msg)
			case "ask.invalid":
				msg.Subject = "a b"
			}
			msg.Header.Set("Trace", "1")
			return next(ctx, msg)
		},
	}))
	ctx := within(t, time.Minute)
	answer, err := client.Request(ctx, "ask.a", nil, 0)
	require.NoError(t, err)
	assert.Equal(t, "1", string(answer.Data))
	own := &nats.Message{Subject: "ask.a", Header: natsgo.Header{"Own": {"1"}}}
	_, err = client.RequestMsg(ctx, own, 0)
	require.NoError(t, err)
	assert.Equal(t, natsgo.Header{"Own": {"1"}}, own.Header)
	answer, err = client.Request(ctx, "ask.cached", nil, 0)
	require.NoError(t, err)
	assert.Equal(t, "from the cache", string(answer.Data))
	for subject, want := range map[string]error{
		"ask.nothing": nats.ErrInvalidArgument, "ask.panic": nats.ErrHandlerPanic, "ask.invalid": nats.ErrInvalidSubject, "ask.slow": nats.ErrTimeout,
	} {
		begun := time.Now()
		timeout := patience
		if subject == "ask.slow" {
			timeout = 50 * time.Millisecond
		}
		_, err = client.Request(ctx, subject, nil, timeout)
		assert.ErrorIs(t, err, want, subject)
		assert.Less(t, since(begun), patience)
	}
	_, err = client.Request(ctx, "ask.a", nil, -1)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Stored is called once for every message, with the context that next got, also for what fails with the client.
func TestInterceptorStored(t *testing.T) {
	t.Parallel()
	type key struct{}
	s := natstest.RunServer(t)
	newStream(t, connect(t, s, nil), 0)
	var mu sync.Mutex
	outcomes := make(map[string][]error)
	proxy := natstest.NewProxy(t, s.URL()) // it keeps its port, that of a stopped server may become another one's
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} }, nats.WithInterceptor(nats.Interceptor{
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			ctx, cancel := context.WithCancel(context.WithValue(ctx, key{}, msg.Subject))
			defer cancel() // which ends no flight
			return next(ctx, msg)
		},
		Stored: func(ctx context.Context, msg *nats.Message, ack *jetstream.PubAck, err error) {
			mu.Lock()
			defer mu.Unlock()
			assert.Equal(t, msg.Subject, ctx.Value(key{}))
			assert.NotEqual(t, ack == nil, err == nil)
			outcomes[msg.Subject] = append(outcomes[msg.Subject], err)
			panic("contained")
		},
	}))
	ctx := within(t, time.Minute)
	_, err := client.PublishToStream(ctx, "orders.sync", nil)
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "nowhere", nil)
	require.ErrorIs(t, err, nats.ErrNoStream)
	future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.async"})
	require.NoError(t, err)
	<-future.Ok()
	proxy.Cut()
	eventually(t, "disconnected", func() bool { return !client.IsConnected() })
	_, err = client.PublishToStream(within(t, 300*time.Millisecond), "orders.late", nil)
	require.Error(t, err)
	_, err = client.PublishAsync(within(t, 300*time.Millisecond), &nats.Message{Subject: "orders.room"})
	require.Error(t, err)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []error{nil}, outcomes["orders.sync"])
	assert.Equal(t, []error{nil}, outcomes["orders.async"], "before the future has it")
	for subject, want := range map[string]error{"nowhere": nats.ErrNoStream, "orders.late": nats.ErrNotConnected, "orders.room": nats.ErrNotConnected} {
		if assert.Len(t, outcomes[subject], 1, subject) {
			assert.ErrorIs(t, outcomes[subject][0], want)
		}
	}
}

// A Stored that hangs keeps neither answers from others nor Close from its end; what fails with the client is told, too.
func TestInterceptorStoredHangs(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	newStream(t, connect(t, s, nil), 0)
	silent := raw(t, s)
	_, err := silent.Subscribe("silent", func(*natsgo.Msg) {})
	require.NoError(t, err)
	require.NoError(t, silent.Flush())
	release := make(chan struct{})
	told := make(chan string, 3)
	client := connect(t, s, nil, nats.WithInterceptor(nats.Interceptor{
		Stored: func(_ context.Context, msg *nats.Message, _ *jetstream.PubAck, err error) {
			if msg.Subject == "orders.hang" {
				<-release
			}
			told <- fmt.Sprint(msg.Subject, " ", errors.Is(err, nats.ErrClosed))
		},
	}))
	ctx := within(t, time.Minute)
	hanging, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.hang"})
	require.NoError(t, err)
	unanswered, err := client.PublishAsync(ctx, &nats.Message{Subject: "silent"})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "orders.1", nil)
	require.NoError(t, err)
	assert.Equal(t, "orders.1 false", <-told)
	require.ErrorIs(t, client.Shutdown(within(t, 50*time.Millisecond)), nats.ErrDrainTimeout)
	assert.NotNil(t, <-hanging.Ok())
	require.ErrorIs(t, <-unanswered.Err(), nats.ErrClosed)
	assert.Equal(t, "silent true", <-told)
	close(release)
	assert.Equal(t, "orders.hang false", <-told)
}

// An interceptor's error, panic and end mean what the handler's do, also where they keep a dead letter from its stream.
func TestInterceptorHandleFails(t *testing.T) {
	t.Parallel()
	var seen calls
	var refusals int
	client := connect(t, natstest.RunServer(t), nil, nats.WithInterceptor(nats.Interceptor{
		Handle: func(msg *nats.Message, next nats.Handler) error {
			seen.note(msg)
			switch string(msg.Data) {
			case "0":
				return nats.Permanent(errPoison)
			case "1":
				panic("no")
			case "2":
				runtime.Goexit()
			}
			return next(msg)
		},
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			if msg.Header.Get(nats.HeaderOriginStream) != "" && refusals < 2 { // one at a time tries
				if refusals++; refusals == 1 {
					runtime.Goexit()
				}
				panic("no")
			}
			return next(ctx, msg)
		},
	}))
	newStream(t, client, 4)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nil }, nats.WithMaxDeliver(1))
	eventually(t, "three dead letters", func() bool { return consumption.Stats().DeadLettered == 3 })
	idle(t, client)
	assert.EqualValues(t, 3, consumption.Stats().Failed)
	require.NoError(t, client.Close())
}

// An interceptor may put a buffer into the message that it uses again.
func TestInterceptorBuffers(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var buffer [5]byte
	client := connect(t, s, nil, nats.WithInterceptor(nats.Interceptor{
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			n := copy(buffer[:], "zip "+string(msg.Data))
			msg.Data = buffer[:n]
			err := next(ctx, msg)
			copy(buffer[:], "other")
			return err
		},
	}))
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	msg := &nats.Message{Subject: "orders.1", Data: []byte("1")}
	_, err = client.PublishAtomic(ctx, []*nats.Message{msg, msg})
	require.NoError(t, err)
	future, err := client.PublishAsync(ctx, msg)
	require.NoError(t, err)
	assert.Equal(t, "zip 1", string(future.Msg().Data))
	<-future.Ok()
	_, err = client.PublishBatch(ctx, []*nats.Message{msg})
	require.NoError(t, err)
	require.NoError(t, client.PublishMsg(ctx, msg))
	eventually(t, "all are stored", func() bool {
		info, err := client.GetStreamInfo(ctx, "ORDERS")
		return err == nil && info.State.Msgs == 5
	})
	for stored, err := range client.ReadStream(ctx, "ORDERS") {
		require.NoError(t, err)
		assert.Equal(t, "zip 1", string(stored.Data))
	}
	_, err = connect(t, s, nil).HandleRequests(ctx, "ask", "", func(msg *nats.Message) ([]byte, error) { return msg.Data, nil })
	require.NoError(t, err)
	for answer, err := range client.RequestMany(ctx, "ask", []byte("1"), nats.WithMaxReplies(1)) {
		require.NoError(t, err)
		assert.Equal(t, "zip 1", string(answer.Data))
	}
}

// An interceptor may call next again, with messages of its own, too.
func TestInterceptorTriesAgain(t *testing.T) {
	t.Parallel()
	shared := natsgo.Header{"Own": {"1"}}
	var tries, stored int
	client := connect(t, natstest.RunServer(t), nil, nats.WithInterceptor(nats.Interceptor{
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			for tries = 1; ; tries++ {
				own := &nats.Message{Subject: msg.Subject, Header: shared}
				if tries == 1 {
					own.Header, own.Subject = nil, "nowhere"
				}
				if err := next(ctx, own); err == nil || tries == 3 {
					return err
				}
			}
		},
		Stored: func(context.Context, *nats.Message, *jetstream.PubAck, error) { stored++ },
	}))
	newStream(t, client, 1)
	assert.Equal(t, []int{2, 2}, []int{tries, stored})
	_, err := client.PublishToStream(within(t, time.Minute), "orders.1", nil)
	require.NoError(t, err)
	assert.Equal(t, natsgo.Header{"Own": {"1"}}, shared)
	for msg, err := range client.ReadStream(within(t, time.Minute), "ORDERS") {
		require.NoError(t, err)
		assert.NotEmpty(t, msg.Header.Get(jetstream.MsgIDHeader))
	}
}

// A copy of a message with another context is the same delivery: it is acknowledged once, by either.
func TestMessageWithContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	var copies, originals []*nats.Message
	client := connect(t, natstest.RunServer(t), nil, nats.WithInterceptor(nats.Interceptor{
		Handle: func(msg *nats.Message, next nats.Handler) error {
			again := msg.WithContext(nil).WithContext(context.WithValue(msg.Context(), key{}, "traced")) //nolint:staticcheck // it is allowed
			originals, copies = append(originals, msg), append(copies, again)
			return next(again)
		},
	}))
	newStream(t, client, 4)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", FilterSubject: "orders.*"})
	acks := []func(original, again *nats.Message) error{
		func(_, again *nats.Message) error { return again.Ack() },
		func(original, _ *nats.Message) error { return original.Term("done") },
		func(_, again *nats.Message) error { return again.AckSync(again.Context()) },
		func(_, again *nats.Message) error {
			return errors.Join(again.InProgress(), client.AckMessage(again.Context(), again))
		},
	}
	consumption := consume(t, client, func(msg *nats.Message) error {
		i := len(copies) - 1
		assert.Equal(t, "traced", msg.Context().Value(key{}))
		assert.Nil(t, originals[i].Context().Value(key{}))
		assert.Equal(t, "orders.*", msg.Pattern())
		meta, err := msg.Metadata()
		if assert.NoError(t, err) {
			assert.EqualValues(t, i+1, meta.Sequence.Stream)
		}
		return acks[i](originals[i], msg)
	})
	eventually(t, "four are handled", func() bool { return consumption.Stats().Handled == 4 })
	idle(t, client)
	require.NoError(t, consumption.Stop(within(t, time.Minute)))
	assert.Zero(t, consumption.Stats().Failed)
	for i := range copies {
		assert.ErrorIs(t, copies[i].Ack(), nats.ErrAlreadyAcked)
		assert.ErrorIs(t, originals[i].Nak(), nats.ErrAlreadyAcked)
		assert.ErrorIs(t, originals[i].WithContext(context.Background()).InProgress(), nats.ErrAlreadyAcked)
	}
	own := (&nats.Message{Subject: "a"}).WithContext(context.WithValue(context.Background(), key{}, 1))
	assert.Equal(t, 1, own.Context().Value(key{}))
	assert.Equal(t, context.Background(), (&nats.Message{}).WithContext(nil).Context()) //nolint:staticcheck // it is allowed
	require.ErrorIs(t, own.Respond(nil), nats.ErrNoReply)
	require.ErrorIs(t, own.Ack(), nats.ErrNotJetStream)
}

// A typed handler finds its message, and every handler what was subscribed to.
func TestMessageFrom(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	got := make(chan *nats.Message, 1)
	_, err := client.Subscribe(context.Background(), "users.*", nats.JSON(func(ctx context.Context, _ int) error {
		got <- nats.MessageFrom(ctx)
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, client.PublishJSON(context.Background(), "users.7", 1))
	msg := <-got
	assert.Equal(t, []string{"users.7", "users.*"}, []string{msg.Subject, msg.Pattern()})
	assert.Nil(t, nats.MessageFrom(msg.Context()))
	assert.Empty(t, (&nats.Message{}).Pattern())
}

// Whatever interceptors do about a request, its caller has an answer at once.
func TestInterceptorAnswers(t *testing.T) {
	t.Parallel()
	type key struct{}
	s := natstest.RunServer(t)
	client := connect(t, s, nil, nats.WithInterceptor(nats.Interceptor{
		Handle: func(msg *nats.Message, next nats.Handler) error {
			switch string(msg.Data) {
			case "1":
				return &nats.ServiceError{Code: 429}
			case "2":
				panic("no")
			case "3":
				runtime.Goexit()
			case "4":
				_ = next(msg)
				return nil
			}
			return next(msg.WithContext(context.WithValue(msg.Context(), key{}, "traced")))
		},
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			if string(msg.Data) == `"5"` {
				return errPoison
			}
			return next(ctx, msg)
		},
	}))
	_, err := client.HandleRequests(context.Background(), "ask", "", nats.JSONRequest(func(ctx context.Context, n int) (string, error) {
		if n == 4 {
			return "", errPoison
		}
		assert.Equal(t, "traced", ctx.Value(key{}))
		return string(nats.MessageFrom(ctx).Data), nil
	}))
	require.NoError(t, err)
	asking := connect(t, s, nil)
	for data, want := range map[string]string{"0": `"0"`, "1": "429", "2": "500", "3": "500", "4": "", "5": "500"} {
		begun := time.Now()
		answer, err := asking.Request(context.Background(), "ask", []byte(data), time.Minute)
		assert.Less(t, since(begun), patience)
		var e *nats.ServiceError
		if errors.As(err, &e) {
			assert.Equal(t, want, fmt.Sprint(e.Code), data)
		} else if assert.NoError(t, err) {
			assert.Equal(t, want, string(answer.Data), data)
		}
	}
}

// Over a restart each message is told once, as its caller is told.
func TestInterceptorStoredOverARestart(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var mu sync.Mutex
	told := make(map[string][]string)
	client := connect(t, s, nil, nats.WithInterceptor(nats.Interceptor{
		Stored: func(_ context.Context, msg *nats.Message, _ *jetstream.PubAck, err error) {
			mu.Lock()
			defer mu.Unlock()
			told[string(msg.Data)] = append(told[string(msg.Data)], fmt.Sprint(err))
		},
	}))
	newStream(t, client, 0)
	const messages = 2000
	restarted := make(chan struct{})
	n := 0
	for _, err := range client.PublishSeq(within(t, time.Minute), func(yield func(*nats.Message) bool) {
		for i := range messages {
			if i == messages/2 {
				go func() { defer close(restarted); s.Restart() }()
			}
			if !yield(&nats.Message{Subject: "orders.1", Data: []byte(fmt.Sprint(i))}) {
				return
			}
		}
	}) {
		mu.Lock()
		assert.Equal(t, []string{fmt.Sprint(err)}, told[fmt.Sprint(n)])
		mu.Unlock()
		n++
	}
	<-restarted
	assert.Equal(t, messages, n)
	assert.Len(t, told, messages)
}
