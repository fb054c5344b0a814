package states

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// setupTimeout bounds what must work before a state begins.
const setupTimeout = 3 * time.Minute

// Scene is one server, one client, and all that calls work on. Each call that ends something has its own.
type Scene struct {
	Client *nats.Client

	tb     testing.TB
	state  State
	ends   *ends
	server *natstest.Server
	proxy  *natstest.Proxy
	stop   []func() // what the state started

	file         string
	question     *nats.Message // a request that waits for its answer
	subs         []*nats.Subscription
	consumptions []*nats.Consumption
	pulled       []*nats.Message
	kv, locks    *nats.KeyValue
	revision     uint64 // of the key a
	updated      uint64 // of the key updated
	watchers     []*nats.KeyWatcher
	caches       []*nats.KeyValueCache
	lock         *nats.Lock
	store        *nats.ObjectStore
	sealed       *nats.ObjectStore
	object       *jetstream.ObjectInfo
}

// newScene starts a server with everything on it, and connects a client.
func newScene(tb testing.TB, line Line, state State) *Scene {
	tb.Helper()
	s := &Scene{tb: tb, state: state, ends: newEnds(tb, line)}
	s.server = natstest.RunServer(tb, natstest.WithConfig(s.ends.server), natstest.WithConfig(state.server))
	s.proxy = natstest.NewProxy(tb, s.ends.url(s.server))
	s.file = filepath.Join(tb.TempDir(), "file")
	must(tb, os.WriteFile(s.file, []byte("content"), 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	s.declare(ctx)
	return s
}

// connect makes the client, and opens what its calls work on. All that these start is marked.
func (s *Scene) connect(mark label, handles bool) {
	s.tb.Helper()
	cfg := &nats.Config{
		URLs:             []string{s.proxy.URL()},
		JetStreamEnabled: true,
		ReconnectWait:    20 * time.Millisecond,
		ReconnectMaxWait: 200 * time.Millisecond,
		RequestTimeout:   s.state.patience(),
		DrainTimeout:     time.Second,
	}
	s.ends.client(cfg)
	var opts []nats.Option
	if s.state.config != nil {
		opts = s.state.config(s, cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // not the little that the calls are given
	s.stop = append(s.stop, cancel)                                     // what is opened lives as long as the context
	mark.run(func() {
		var err error
		s.Client, err = nats.NewClient(cfg, opts...)
		must(s.tb, err)
		if handles && !s.state.Never {
			s.open(ctx)
		}
	})
}

// declare makes streams, buckets and a service over connections that no state touches.
func (s *Scene) declare(ctx context.Context) {
	tb := s.tb
	tb.Helper()
	nc, err := natsgo.Connect("", natsgo.InProcessServer(s.server.Embedded()), natsgo.NoReconnect())
	must(tb, err)
	tb.Cleanup(nc.Close)
	_, err = nc.Subscribe("echo", func(m *natsgo.Msg) { _ = m.Respond(m.Data) })
	must(tb, err)
	must(tb, nc.Flush())

	cfg := &nats.Config{URLs: []string{s.ends.url(s.server)}, JetStreamEnabled: true, DefaultStorageType: "memory"}
	s.ends.client(cfg)
	client, err := nats.NewClientContext(ctx, cfg)
	must(tb, err)
	defer func() { must(tb, client.Close()) }()
	for name, subject := range map[string]string{
		"ORDERS": "orders.>", "ORDERS_DLQ": "dlq.ORDERS.>", "OTHER": "other.>", "ATOMIC": "atomic.>",
		"EMPTY": "empty.>", "PURGED": "purged.>", "OLD": "old.>",
	} {
		_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
			Name: name, Subjects: []string{subject}, AllowAtomicPublish: name == "ATOMIC", AllowDirect: true,
		})
		must(tb, err)
	}
	for range 10 {
		_, err := client.PublishToStream(ctx, "orders.x", []byte("x"))
		must(tb, err)
	}
	for _, name := range []string{"idle", "paused", "old", "consumed", "consumed-1", "consumed-2"} {
		_, err := client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: name})
		must(tb, err)
	}
	_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "pulled", AckWait: setupTimeout}) // acknowledged only in the state
	must(tb, err)
	_, err = client.CreateConsumer(ctx, "EMPTY", &jetstream.ConsumerConfig{Name: "empty"})
	must(tb, err)
	for _, bucket := range []string{"config", "locks", "old"} {
		kv, err := client.CreateKeyValue(ctx, bucket, nats.WithKeyHistory(5), nats.WithKeyTTLs(time.Second))
		must(tb, err)
		for _, key := range []string{"a", "b", "updated", "modified", "deleted", "purged"} {
			revision, err := kv.Put(ctx, key, []byte("1"))
			must(tb, err)
			switch key {
			case "a":
				s.revision = revision
			case "updated":
				s.updated = revision
			}
		}
	}
	for _, bucket := range []string{"files", "sealed", "old"} {
		store, err := client.CreateObjectStore(ctx, bucket)
		must(tb, err)
		for _, name := range []string{"a", "described", "deleted"} {
			info, err := store.PutBytes(ctx, name, []byte("content"))
			must(tb, err)
			if bucket == "files" && name == "a" {
				s.object = info
			}
		}
	}
}

// open makes what the calls end, or ask.
func (s *Scene) open(ctx context.Context) {
	tb, c := s.tb, s.Client
	tb.Helper()
	for range 3 {
		sub, err := c.Subscribe(ctx, "nothing", ignore)
		must(tb, err)
		s.subs = append(s.subs, sub)
	}
	for _, name := range []string{"consumed-1", "consumed-2"} {
		consumption, err := c.Consume(ctx, "ORDERS", name, ignore)
		must(tb, err)
		s.consumptions = append(s.consumptions, consumption)
	}
	for len(s.pulled) < 8 {
		messages, err := c.PullMessages(ctx, "ORDERS", "pulled", 8-len(s.pulled))
		must(tb, err)
		s.pulled = append(s.pulled, messages...)
	}
	var err error
	s.kv, err = c.GetKeyValue(ctx, "config")
	must(tb, err)
	s.locks, err = c.GetKeyValue(ctx, "locks")
	must(tb, err)
	s.lock, err = s.locks.Lock(ctx, "mine", 10*time.Second)
	must(tb, err)
	_, err = s.locks.Lock(ctx, "held", 10*time.Second)
	must(tb, err)
	for range 2 {
		watcher, err := s.kv.Watch(ctx, "a")
		must(tb, err)
		s.watchers = append(s.watchers, watcher)
		cache, err := s.kv.Cached(ctx)
		must(tb, err)
		s.caches = append(s.caches, cache)
	}
	s.store, err = c.GetObjectStore(ctx, "files")
	must(tb, err)
	s.sealed, err = c.GetObjectStore(ctx, "sealed")
	must(tb, err)
	s.question = s.ask(ctx)
	// The inboxes for all answers come with the first question.
	_, err = c.Conn().RequestWithContext(ctx, "echo", nil)
	must(tb, err)
	_, err = c.PublishBatch(ctx, []*nats.Message{event("other.x")})
	must(tb, err)
}

// ask returns a request as its responder has it, unanswered.
func (s *Scene) ask(ctx context.Context) *nats.Message {
	s.tb.Helper()
	asked := make(chan *nats.Message, 1)
	sub, err := s.Client.Subscribe(ctx, "question", func(msg *nats.Message) error { asked <- msg; return nil })
	must(s.tb, err)
	must(s.tb, s.Client.PublishWithReply(ctx, "question", "answers", nil))
	question := <-asked
	must(s.tb, sub.Unsubscribe())
	return question
}
