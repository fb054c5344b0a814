package nats_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// workplace is a client with something for each kind of call, and a second client that answers.
type workplace struct {
	server  *natstest.Server
	client  *nats.Client
	other   *nats.Client
	kv      *nats.KeyValue
	objects *nats.ObjectStore
}

func newWorkplace(t *testing.T, opts ...nats.Option) *workplace {
	t.Helper()
	s := natstest.RunServer(t)
	w := &workplace{server: s, client: connect(t, s, nil, opts...), other: connect(t, s, nil)}
	ctx := context.Background()
	newStream(t, w.client, 10)
	newConsumer(t, w.client, jetstream.ConsumerConfig{Name: "worker"})
	newConsumer(t, w.client, jetstream.ConsumerConfig{Name: "pulled"})
	var err error
	w.kv, err = w.client.CreateKeyValue(ctx, "kv")
	require.NoError(t, err)
	_, err = w.kv.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	w.objects, err = w.client.CreateObjectStore(ctx, "objects")
	require.NoError(t, err)
	_, err = w.objects.PutBytes(ctx, "o", make([]byte, 300<<10))
	require.NoError(t, err)
	_, err = w.other.Subscribe(ctx, "answer", func(msg *nats.Message) error { return msg.Respond([]byte("yes")) })
	require.NoError(t, err)
	return w
}

// calls makes a call of each kind that a handler makes.
func (w *workplace) calls(ctx context.Context) map[string]error {
	errs := map[string]error{
		"Publish":         w.client.Publish(ctx, "x", nil),
		"Flush":           w.client.Flush(ctx),
		"Request":         second(w.client.Request(ctx, "answer", nil, patience)),
		"PublishToStream": second(w.client.PublishToStream(ctx, "orders.new", nil)),
		"PublishBatch":    second(w.client.PublishBatch(ctx, []*nats.Message{{Subject: "orders.new"}})),
		"PullMessages":    second(w.client.PullMessages(ctx, "ORDERS", "pulled", 1)),
		"GetStreamInfo":   second(w.client.GetStreamInfo(ctx, "ORDERS")),
		"KV Get":          second(w.kv.Get(ctx, "k")),
		"KV Put":          second(w.kv.Put(ctx, "k", nil)),
		"Object GetBytes": second(w.objects.GetBytes(ctx, "o")),
		"Object PutBytes": second(w.objects.PutBytes(ctx, "p", nil)),
		"upstream Stream": second(w.client.JetStream().Stream(ctx, "ORDERS")),
	}
	future, err := w.client.PublishAsync(ctx, &nats.Message{Subject: "orders.new"})
	if err == nil {
		select {
		case <-future.Ok():
		case err = <-future.Err():
		}
	}
	errs["PublishAsync"] = err
	return errs
}

// awaitClosing waits until Close has begun.
func awaitClosing(t *testing.T, client *nats.Client) {
	t.Helper()
	eventually(t, "it closes", func() bool {
		sub, err := client.Subscribe(context.Background(), "late", func(*nats.Message) error { return nil })
		if err == nil {
			err = sub.Unsubscribe()
		}
		return errors.Is(err, nats.ErrClosed)
	})
}

// A handler that runs while the client closes does its work to the end: none of its calls is refused.
func TestCallsOfHandlersWorkDuringClose(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, *workplace, nats.Handler){
		"Subscribe": func(t *testing.T, w *workplace, h nats.Handler) {
			_, err := w.client.Subscribe(context.Background(), "work", h)
			require.NoError(t, err)
			require.NoError(t, w.other.Publish(context.Background(), "work", nil))
		},
		"Consume": func(t *testing.T, w *workplace, h nats.Handler) { consume(t, w.client, h) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkplace(t)
			started, closing := make(chan struct{}), make(chan struct{})
			var errs map[string]error
			begin(t, w, func(msg *nats.Message) error {
				close(started)
				<-closing
				errs = w.calls(msg.Context())
				return nil
			})
			<-started
			closed := make(chan error)
			go func() { closed <- w.client.Close() }()
			awaitClosing(t, w.client)
			close(closing)
			require.NoError(t, <-closed)
			for call, err := range errs {
				assert.NoError(t, err, call)
			}
		})
	}
}

// A second call keeps to its own time, whatever the first one waits for.
func TestSecondCloseKeepsToItsOwnTime(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	started, release := make(chan struct{}), make(chan struct{})
	_, err := client.Subscribe(context.Background(), "work", func(*nats.Message) error {
		close(started)
		<-release
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, client.Publish(context.Background(), "work", nil))
	<-started
	first := make(chan error)
	go func() { first <- client.Close() }()
	awaitClosing(t, client)
	begin := time.Now()
	err = client.Shutdown(within(t, 50*time.Millisecond))
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, since(begin), patience)
	close(release)
	require.NoError(t, <-first)
	require.NoError(t, client.Shutdown(within(t, patience)))
}

// foreign begins, on Conn(), something with a handler that is not the client's, calls h with what answers
// one message, and sends three messages to it.
var foreign = map[string]func(t *testing.T, w *workplace, h func(respond func([]byte) error)) (answers func() int){
	"a micro service": func(t *testing.T, w *workplace, h func(func([]byte) error)) func() int {
		_, err := micro.AddService(w.client.Conn(), micro.Config{
			Name: "Echo", Version: "1.0.0", Endpoint: &micro.EndpointConfig{Subject: "foreign", Handler: micro.HandlerFunc(func(r micro.Request) {
				h(func(data []byte) error { return r.Respond(data) })
			})},
		})
		require.NoError(t, err)
		return w.ask(t)
	},
	"a plain subscription": func(t *testing.T, w *workplace, h func(func([]byte) error)) func() int {
		_, err := w.client.Conn().Subscribe("foreign", func(m *natsgo.Msg) { h(m.Respond) })
		require.NoError(t, err)
		return w.ask(t)
	},
	"upstream's Consume": func(t *testing.T, w *workplace, h func(func([]byte) error)) func() int {
		consumer, err := w.client.JetStream().Consumer(context.Background(), "ORDERS", "worker")
		require.NoError(t, err)
		_, err = consumer.Consume(func(m jetstream.Msg) { h(func([]byte) error { return m.Ack() }) })
		require.NoError(t, err)
		return func() int {
			info, err := w.other.GetConsumerInfo(context.Background(), "ORDERS", "worker")
			require.NoError(t, err)
			return int(info.AckFloor.Stream)
		}
	},
}

// ask sends three requests and tells how many are answered.
func (w *workplace) ask(t *testing.T) func() int {
	t.Helper()
	ctx := context.Background()
	require.NoError(t, w.client.Flush(ctx))
	var answers atomic.Int64
	_, err := w.other.Subscribe(ctx, "answers", func(*nats.Message) error { answers.Add(1); return nil })
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, w.other.PublishWithReply(ctx, "foreign", "answers", nil))
	}
	require.NoError(t, w.other.Flush(ctx))
	return func() int { return int(answers.Load()) }
}

// What others have on Conn() is let end as well: raw, none of the three answers came, and nil was returned.
func TestCloseDrainsWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	for name, begin := range foreign {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkplace(t)
			started, closing := make(chan struct{}, 20), make(chan struct{})
			errs := make(chan map[string]error, 20)
			answers := begin(t, w, func(respond func([]byte) error) {
				started <- struct{}{}
				<-closing
				if len(errs) == 0 {
					errs <- w.calls(within(t, patience))
				}
				assert.NoError(t, respond(nil))
			})
			<-started
			closed := make(chan error)
			go func() { closed <- w.client.Close() }()
			awaitClosing(t, w.client)
			close(closing)
			require.NoError(t, <-closed)
			for call, err := range <-errs {
				assert.NoError(t, err, call)
			}
			eventually(t, "3 answers", func() bool { return answers() >= 3 })
		})
	}
}

func TestShutdownCountsWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t)
	started, release := make(chan struct{}, 3), make(chan struct{})
	defer close(release)
	before := w.client.Conn().Stats().InMsgs
	foreign["a plain subscription"](t, w, func(func([]byte) error) {
		started <- struct{}{}
		<-release
	})
	<-started
	eventually(t, "two wait", func() bool { return w.client.Conn().Stats().InMsgs >= before+3 })
	begin := time.Now()
	err := w.client.Shutdown(within(t, 100*time.Millisecond))
	assert.Less(t, since(begin), patience)
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	var left *nats.ShutdownError
	require.ErrorAs(t, err, &left)
	assert.Equal(t, 1, left.Handlers)
	assert.Equal(t, 2, left.Messages)
}

// What others have received is handled without a server, too.
func TestCloseDrainsWhatIsNotItsOwnWhileDisconnected(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	var handled atomic.Int64
	started := make(chan struct{}, 10)
	_, err := client.Conn().Subscribe("work", func(*natsgo.Msg) {
		started <- struct{}{}
		time.Sleep(20 * time.Millisecond) // the work
		handled.Add(1)
	})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, client.Publish(context.Background(), "work", nil))
	}
	require.NoError(t, client.Flush(context.Background()))
	<-started
	s.Stop()
	require.NoError(t, client.Close())
	assert.EqualValues(t, 10, handled.Load())
}

// Where the network drops everything, what is fetched and received cannot be given back, and others hold
// the connection's lock: the time that Shutdown was given counts still.
func TestShutdownKeepsItsTimeInABlackHole(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	newStream(t, client, 100)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	handled := make(chan struct{}, 100)
	consume(t, client, func(msg *nats.Message) error {
		handled <- struct{}{}
		if len(handled) > 50 {
			<-msg.Context().Done()
		}
		return msg.Context().Err()
	}, nats.WithWorkers(4))
	_, err := client.Conn().Subscribe("foreign", func(*natsgo.Msg) {})
	require.NoError(t, err)
	_, err = client.Subscribe(context.Background(), "own", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	eventually(t, "it is in the middle", func() bool { return len(handled) > 50 })
	proxy.BlackHole()
	eventually(t, "no room is left", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		return client.Publish(ctx, "x", make([]byte, 512<<10)) != nil
	})
	begin := time.Now()
	second := make(chan time.Duration, 1)
	go func() {
		_ = client.Shutdown(within(t, 50*time.Millisecond))
		second <- time.Since(begin)
	}()
	err = client.Shutdown(within(t, 300*time.Millisecond))
	assert.Less(t, since(begin), 800*time.Millisecond+raceSlack)
	require.Error(t, err)
	assert.Less(t, <-second, 550*time.Millisecond+raceSlack)
}
