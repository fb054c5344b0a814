package nats_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What a callback does wrong harms nothing: its panic, or the end of its goroutine where that is one of
// the library's. Where it runs in the caller's goroutine and its result is needed, the panic is the
// caller's, and the client goes on.
func TestCallbacksThatFail(t *testing.T) {
	t.Parallel()
	failures := map[string]func(){"panic": func() { panic("not this way") }, "Goexit": runtime.Goexit}
	type callback struct {
		callers, propagates bool
		use                 func(t *testing.T, w *workplace, fail func())
	}
	for name, c := range map[string]callback{
		"Subscribe's handler": {use: func(t *testing.T, w *workplace, fail func()) {
			var calls atomic.Int64
			_, err := w.client.Subscribe(context.Background(), "work", func(*nats.Message) error {
				if calls.Add(1) == 1 {
					fail()
				}
				return nil
			})
			require.NoError(t, err)
			for range 3 {
				require.NoError(t, w.other.Publish(context.Background(), "work", nil))
			}
			eventually(t, "all are handled", func() bool { return calls.Load() == 3 })
		}},
		"Consume's handler": {use: func(t *testing.T, w *workplace, fail func()) {
			var calls atomic.Int64
			consume(t, w.client, func(*nats.Message) error {
				if calls.Add(1) == 1 {
					fail()
				}
				return nil
			}, nats.WithBackoff(10*time.Millisecond))
			eventually(t, "all are handled", func() bool { return calls.Load() == 11 })
			idle(t, w.client)
		}},
		"WithKey": {use: func(t *testing.T, w *workplace, fail func()) {
			var asked atomic.Int64
			var got calls
			newConsumer(t, w.client, jetstream.ConsumerConfig{Name: "keyed", AckWait: 500 * time.Millisecond})
			_, err := w.client.Consume(context.Background(), "ORDERS", "keyed", func(msg *nats.Message) error {
				got.note(msg)
				return nil
			}, nats.WithKey(func(*nats.Message) string {
				if asked.Add(1) == 1 {
					fail()
				}
				return "key"
			}))
			require.NoError(t, err)
			eventually(t, "all are handled", func() bool { return got.distinct() == 10 })
		}},
		"Put's WithProgress": {callers: true, use: func(t *testing.T, w *workplace, fail func()) {
			info, err := w.objects.Put(context.Background(), jetstream.ObjectMeta{Name: "big"}, bytes.NewReader(make([]byte, 1<<20)),
				nats.WithProgress(func(int64, int64) { fail() }))
			require.NoError(t, err)
			assert.EqualValues(t, 1<<20, info.Size)
		}},
		"GetBytes's WithProgress": {callers: true, use: func(t *testing.T, w *workplace, fail func()) {
			data, err := w.objects.GetBytes(context.Background(), "o", nats.WithProgress(func(int64, int64) { fail() }))
			require.NoError(t, err)
			assert.Len(t, data, 300<<10)
		}},
		"Modify's function": {callers: true, propagates: true, use: func(t *testing.T, w *workplace, fail func()) {
			_, err := w.kv.Modify(context.Background(), "k", func([]byte) ([]byte, error) { fail(); return nil, nil })
			require.NoError(t, err)
		}},
		"Elect's function": {callers: true, propagates: true, use: func(t *testing.T, w *workplace, fail func()) {
			locks, err := w.client.CreateKeyValue(context.Background(), "locks", nats.WithKeyTTLs(time.Second))
			require.NoError(t, err)
			defer func() { // the lock is free again
				lock, err := locks.Lock(within(t, patience), "leader", 10*time.Second)
				require.NoError(t, err)
				require.NoError(t, lock.Unlock(context.Background()))
			}()
			_ = locks.Elect(context.Background(), "leader", func(context.Context) error { fail(); return nil }, nats.WithLease(time.Minute))
		}},
		"a loop over ReadStream": {callers: true, propagates: true, use: func(t *testing.T, w *workplace, fail func()) {
			for _, err := range w.client.ReadStream(context.Background(), "ORDERS") {
				assert.NoError(t, err)
				fail()
			}
		}},
	} {
		for failure, f := range failures {
			if c.callers && failure == "Goexit" {
				continue // the caller has asked for it
			}
			t.Run(name+", "+failure, func(t *testing.T) {
				t.Parallel()
				w := newWorkplace(t)
				if c.propagates {
					assert.Panics(t, func() { c.use(t, w, f) })
				} else {
					c.use(t, w, f)
				}
				for call, err := range w.calls(within(t, patience)) {
					assert.NoError(t, err, call)
				}
				require.NoError(t, w.client.Close())
			})
		}
	}
}

// The events go on after a handler that fails, in order.
func TestEventHandlerThatFails(t *testing.T) {
	t.Parallel()
	for failure, fail := range map[string]func(){"panic": func() { panic("not this way") }, "Goexit": runtime.Goexit} {
		t.Run(failure, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			var events eventLog
			client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()), nats.WithEventHandler(func(e nats.Event) {
				events.handle(e)
				fail()
			}))
			_, err := client.Subscribe(context.Background(), "work", func(*nats.Message) error { return errors.New("an event") })
			require.NoError(t, err)
			for range 3 {
				require.NoError(t, client.Publish(context.Background(), "work", nil))
			}
			eventually(t, "the events", func() bool { return len(events.of(nats.EventHandlerError)) == 3 })
			assert.Equal(t, failure == "panic", strings.Contains(log.String(), "not this way"))
		})
	}
}

// Nats.go calls these on goroutines of its own, where a panic ends the process.
func TestUpstreamsCallbacksThatPanic(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var log logBuffer
	conn := func(*natsgo.Conn) { panic("not this way") }
	connErr := func(*natsgo.Conn, error) { panic("not this way") }
	client := connect(t, s, nil, nats.WithLogger(log.logger()), nats.WithNATSOptions(
		natsgo.ConnectHandler(conn), natsgo.ReconnectHandler(conn), natsgo.ClosedHandler(conn), natsgo.LameDuckModeHandler(conn),
		natsgo.DisconnectErrHandler(connErr),
		natsgo.ErrorHandler(func(*natsgo.Conn, *natsgo.Subscription, error) { panic("not this way") }),
	))
	stuck := make(chan struct{})
	slow, err := client.Conn().Subscribe("slow", func(*natsgo.Msg) { <-stuck })
	require.NoError(t, err)
	require.NoError(t, slow.SetPendingLimits(1, -1))
	for range 5 {
		require.NoError(t, client.Publish(context.Background(), "slow", nil))
	}
	require.NoError(t, client.Flush(context.Background()))
	s.Stop()
	s.Restart()
	require.NoError(t, client.Flush(within(t, patience)))
	close(stuck)
	require.NoError(t, client.Close())
	for _, callback := range []string{"DisconnectedErrCB", "ReconnectedCB", "AsyncErrorCB", "ClosedCB"} {
		eventually(t, callback+" is logged", func() bool { return strings.Contains(log.String(), "callback="+callback) })
	}
}

// logging is a logger's handler that calls back.
type logging func(text string)

func (logging) Enabled(context.Context, slog.Level) bool { return true }
func (f logging) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}
func (f logging) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f logging) WithGroup(string) slog.Handler      { return f }

// The handler of a logger may use the client that logs.
func TestLoggerThatUsesTheClient(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users, o.NoAuthUser = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"denied"}},
		}}}, "u"
	}))
	var client atomic.Pointer[nats.Client]
	said := make(chan string, 1000)
	client.Store(connect(t, s, nil, nats.WithLogger(slog.New(logging(func(text string) {
		if c := client.Load(); c != nil {
			c.Stats()
			ctx, cancel := context.WithTimeout(context.Background(), patience/2)
			defer cancel()
			if err := c.Ping(ctx); !errors.Is(err, nats.ErrClosed) {
				assert.NoError(t, err, text)
			}
		}
		said <- text
	})))))
	c := client.Load()
	heard := func(text string) {
		for deadline := time.After(patience); ; {
			select {
			case one := <-said:
				if one == text {
					return
				}
			case <-deadline:
				require.FailNow(t, "it is not logged: "+text)
			}
		}
	}
	require.NoError(t, c.Publish(t.Context(), "denied", nil))
	heard("error on the NATS connection")
	newStream(t, c, 0)
	_, err := c.Consume(t.Context(), "ORDERS", "c", func(*nats.Message) error { return nil },
		nats.WithConsumerConfig(&jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy}))
	require.NoError(t, err)
	require.NoError(t, c.DeleteConsumer(t.Context(), "ORDERS", "c"))
	heard("consumer is available")
}

// returning returns a function of a type that returns zero values.
func returning(of reflect.Type) reflect.Value {
	return reflect.MakeFunc(of, func([]reflect.Value) (results []reflect.Value) {
		for i := range of.NumOut() {
			results = append(results, reflect.Zero(of.Out(i)))
		}
		return results
	})
}

// Whatever is called without a context is an error, not a panic.
func TestNoContext(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t)
	c := w.client
	handler := func(*nats.Message) error { return nil }
	subscription, err := c.Subscribe(t.Context(), "a", handler)
	require.NoError(t, err)
	newConsumer(t, c, jetstream.ConsumerConfig{Name: "consumed"})
	consumption, err := c.Consume(t.Context(), "ORDERS", "consumed", handler)
	require.NoError(t, err)
	service, err := c.AddService(t.Context(), nats.ServiceConfig{Name: "s", Version: "1.0.0"})
	require.NoError(t, err)
	newConsumer(t, c, jetstream.ConsumerConfig{Name: "pulled"})
	messages, err := c.PullMessages(within(t, patience), "ORDERS", "pulled", 1)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	none := reflect.Zero(reflect.TypeFor[context.Context]())
	for _, of := range []any{c, subscription, consumption, service, messages[0], w.kv, w.objects} {
		v := reflect.ValueOf(of)
		for i := range v.NumMethod() {
			name, method := v.Type().Method(i).Name, v.Method(i).Type()
			if method.NumIn() == 0 || method.In(0) != none.Type() || name == "WithContext" {
				continue
			}
			args := []reflect.Value{none}
			for j := 1; j < method.NumIn() && (!method.IsVariadic() || j < method.NumIn()-1); j++ {
				arg := reflect.Zero(method.In(j))
				if arg.Kind() == reflect.Func {
					arg = returning(arg.Type())
				}
				args = append(args, arg)
			}
			assert.NotPanics(t, func() {
				for _, result := range v.Method(i).Call(args) {
					if result.Kind() == reflect.Func && !result.IsNil() {
						result.Call([]reflect.Value{returning(result.Type().In(0))})
					}
				}
			}, "%T.%s", of, name)
		}
	}
	var no context.Context
	require.ErrorIs(t, c.AckMessage(no, messages[0]), nats.ErrInvalidArgument)
	require.NoError(t, c.AckMessage(t.Context(), messages[0]), "it is not taken for acknowledged")
}
