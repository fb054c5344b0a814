package nats_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// permissionsPage has a server's configuration for each of the capabilities.
const permissionsPage = "docs/permissions.md"

// capability is what a user with the rights of a section of the page is able to do.
type capability struct {
	prepare func(ctx context.Context, admin *nats.Client) error // what somebody else has made
	use     func(ctx context.Context, client, admin *nats.Client) error
	denied  string // for a message that is held for long: what it can do without, as the page says
}

func orders(ctx context.Context, admin *nats.Client) error {
	_, err := admin.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	return err
}

func ordersAndWorker(ctx context.Context, admin *nats.Client) error {
	if err := orders(ctx, admin); err != nil {
		return err
	}
	if _, err := admin.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "worker", AckWait: 2 * time.Second}); err != nil {
		return err
	}
	for range 3 {
		if _, err := admin.PublishToStream(ctx, "orders.new", []byte("{}")); err != nil {
			return err
		}
	}
	return nil
}

func ordersAndDeadLetters(ctx context.Context, admin *nats.Client) error {
	if _, err := admin.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS_DLQ", Subjects: []string{"dlq.>"}}); err != nil {
		return err
	}
	return ordersAndWorker(ctx, admin)
}

func settings(ctx context.Context, admin *nats.Client) error {
	kv, err := admin.CreateKeyValue(ctx, "settings", nats.WithKeyHistory(3), nats.WithKeyTTLs(time.Minute))
	if err != nil {
		return err
	}
	_, err = kv.Put(ctx, "a.b", []byte("1"))
	return err
}

func files(ctx context.Context, admin *nats.Client) error {
	store, err := admin.CreateObjectStore(ctx, "files")
	if err != nil {
		return err
	}
	if _, err := store.PutBytes(ctx, "large", make([]byte, 1<<20)); err != nil {
		return err
	}
	_, err = store.PutString(ctx, "there", "content")
	return err
}

// consumed consumes until n messages have been handled, and then stops.
func consumed(ctx context.Context, client *nats.Client, n int, h nats.Handler, opts ...nats.ConsumeOption) error {
	var mu sync.Mutex
	handled, done := 0, make(chan struct{})
	consumption, err := client.Consume(ctx, "ORDERS", "worker", func(msg *nats.Message) error {
		mu.Lock()
		if handled++; handled == n {
			close(done)
		}
		mu.Unlock()
		return h(msg)
	}, opts...)
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), consumption.Err())
	}
	return consumption.Stop(ctx)
}

var capabilities = map[string]capability{
	"Core publisher": {use: func(ctx context.Context, client, _ *nats.Client) error {
		return errors.Join(client.Publish(ctx, "orders.new", nil), client.Flush(ctx))
	}},
	"Core subscriber": {use: func(ctx context.Context, client, _ *nats.Client) error {
		handle := func(*nats.Message) error { return nil }
		if _, err := client.QueueSubscribe(ctx, "orders.>", "workers", handle); err != nil {
			return err
		}
		_, err := client.Subscribe(ctx, "orders.>", handle)
		return err
	}},
	"Requester": {
		prepare: func(ctx context.Context, admin *nats.Client) error {
			_, err := admin.Subscribe(ctx, "stock.level", func(msg *nats.Message) error { return msg.Respond(nil) })
			return err
		},
		use: func(ctx context.Context, client, _ *nats.Client) error {
			_, err := client.Request(ctx, "stock.level", nil, 0)
			return err
		},
	},
	"Responder": {use: func(ctx context.Context, client, admin *nats.Client) error {
		_, err := client.QueueSubscribe(ctx, "stock.level", "stock", func(msg *nats.Message) error { return msg.Respond(nil) })
		if err != nil {
			return err
		}
		_, err = admin.Request(ctx, "stock.level", nil, 0)
		return err
	}},
	"Stream publisher": {prepare: orders, use: func(ctx context.Context, client, _ *nats.Client) error {
		_, err := client.PublishToStream(ctx, "orders.new", nil)
		if err != nil {
			return err
		}
		_, err = client.PublishBatch(ctx, []*nats.Message{{Subject: "orders.new"}, {Subject: "orders.old"}})
		return err
	}},
	"Worker": {prepare: ordersAndWorker, use: func(ctx context.Context, client, _ *nats.Client) error {
		failed := false
		return consumed(ctx, client, 4, func(*nats.Message) error {
			if !failed {
				failed = true
				return nats.RetryAfter(errors.New("not yet"), time.Millisecond)
			}
			time.Sleep(500 * time.Millisecond) // long enough for its deadline to be extended
			return nil
		})
	}},
	"Worker with a retry stream": {
		prepare: func(ctx context.Context, admin *nats.Client) error {
			if err := ordersAndWorker(ctx, admin); err != nil {
				return err
			}
			// A quarter of it may wait in its stream.
			few := &jetstream.ConsumerConfig{Name: "worker", MaxAckPending: 4}
			if _, err := admin.EnsureConsumer(ctx, "ORDERS", few, nats.AllowShrink()); err != nil {
				return err
			}
			started := func(*nats.Message) error { return nats.RetryAfter(errors.New("later"), time.Millisecond) }
			return consumed(ctx, admin, 1, started, nats.WithRetryStream())
		},
		use: func(ctx context.Context, client, _ *nats.Client) error {
			var all sync.Map
			return consumed(ctx, client, 6, func(msg *nats.Message) error {
				meta, err := msg.Metadata()
				if err != nil {
					return nats.Permanent(err)
				}
				if _, again := all.LoadOrStore(meta.Sequence.Stream, true); again {
					return nil
				}
				return nats.RetryAfter(errors.New("not yet"), 500*time.Millisecond)
			}, nats.WithRetryStream())
		},
	},
	"Worker with dead letters": {prepare: ordersAndDeadLetters, use: func(ctx context.Context, client, _ *nats.Client) error {
		return consumed(ctx, client, 3, func(*nats.Message) error { return nats.Permanent(errors.New("bad")) }, nats.WithMaxDeliver(3))
	}},
	"Puller": {prepare: func(ctx context.Context, admin *nats.Client) error {
		if err := ordersAndWorker(ctx, admin); err != nil {
			return err
		}
		_, err := admin.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "worker", AckWait: time.Minute})
		return err
	}, denied: "CONSUMER.INFO.ORDERS.worker", use: func(ctx context.Context, client, _ *nats.Client) error {
		msgs, err := client.PullMessages(ctx, "ORDERS", "worker", 3)
		if err != nil {
			return err
		}
		for _, msg := range msgs {
			if err := client.AckMessage(ctx, msg); err != nil {
				return err
			}
		}
		return nil
	}},
	"Stream reader": {prepare: ordersAndWorker, use: func(ctx context.Context, client, _ *nats.Client) error {
		for _, err := range client.ReadStream(ctx, "ORDERS") {
			if err != nil {
				return err
			}
		}
		return nil
	}},
	"Replay of dead letters": {
		prepare: func(ctx context.Context, admin *nats.Client) error {
			if err := ordersAndDeadLetters(ctx, admin); err != nil {
				return err
			}
			if err := consumed(ctx, admin, 3, func(*nats.Message) error { return nats.Permanent(errors.New("bad")) }); err != nil {
				return err
			}
			for {
				info, err := admin.GetStreamInfo(ctx, "ORDERS_DLQ")
				if err != nil || info.State.Msgs == 3 {
					return err
				}
			}
		},
		use: func(ctx context.Context, client, _ *nats.Client) error {
			n, err := client.ReplayDeadLetters(ctx, "ORDERS")
			if err == nil && n != 3 {
				err = fmt.Errorf("%d replayed", n)
			}
			return err
		},
	},
	"Key-value reader": {prepare: settings, use: func(ctx context.Context, client, _ *nats.Client) error {
		kv, err := client.GetKeyValue(ctx, "settings")
		if err != nil {
			return err
		}
		if _, err := kv.Get(ctx, "a.b"); err != nil {
			return err
		}
		if _, err := kv.GetRevision(ctx, "a.b", 1); err != nil {
			return err
		}
		if _, err := kv.GetMany(ctx, "a.b", "c"); err != nil {
			return err
		}
		for _, err := range kv.Keys(ctx) {
			if err != nil {
				return err
			}
		}
		cache, err := kv.Cached(ctx)
		if err != nil {
			return err
		}
		return cache.Close()
	}},
	"Key-value writer": {prepare: settings, use: func(ctx context.Context, client, _ *nats.Client) error {
		kv, err := client.GetKeyValue(ctx, "settings")
		if err != nil {
			return err
		}
		revision, err := kv.Put(ctx, "a.b", nil)
		if err != nil {
			return err
		}
		if _, err := kv.Update(ctx, "a.b", nil, revision); err != nil {
			return err
		}
		if _, err := kv.Modify(ctx, "a.b", func(old []byte) ([]byte, error) { return append(old, 'x'), nil }); err != nil {
			return err
		}
		return errors.Join(kv.Delete(ctx, "a.b"), kv.Purge(ctx, "a.b"))
	}},
	"Lock": {prepare: settings, use: func(ctx context.Context, client, admin *nats.Client) error {
		kv, err := client.GetKeyValue(ctx, "settings")
		if err != nil {
			return err
		}
		others, err := admin.GetKeyValue(ctx, "settings")
		if err != nil {
			return err
		}
		held, err := others.Lock(ctx, "locks.a", 5*time.Second)
		if err != nil {
			return err
		}
		waited := time.AfterFunc(100*time.Millisecond, func() { _ = held.Unlock(ctx) })
		defer waited.Stop()
		lock, err := kv.Lock(ctx, "locks.a", 5*time.Second)
		if err != nil {
			return err
		}
		return lock.Unlock(ctx)
	}},
	"Object reader": {prepare: files, use: func(ctx context.Context, client, _ *nats.Client) error {
		store, err := client.GetObjectStore(ctx, "files")
		if err != nil {
			return err
		}
		if _, err := store.GetBytes(ctx, "there"); err != nil {
			return err
		}
		if _, err := store.GetBytes(ctx, "large"); err != nil {
			return err
		}
		_, err = store.List(ctx)
		return err
	}},
	"Object writer": {prepare: files, use: func(ctx context.Context, client, _ *nats.Client) error {
		store, err := client.GetObjectStore(ctx, "files")
		if err != nil {
			return err
		}
		if _, err := store.PutString(ctx, "there", "other"); err != nil {
			return err
		}
		return store.Delete(ctx, "there")
	}},
	"Setup": {use: func(ctx context.Context, client, _ *nats.Client) error {
		for _, text := range []string{"one", "two"} {
			if _, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Description: text}); err != nil {
				return err
			}
			if _, err := client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "worker", Description: text}); err != nil {
				return err
			}
			describe := nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) { c.Description = text })
			if _, err := client.EnsureKeyValue(ctx, "settings", describe); err != nil {
				return err
			}
		}
		return nil
	}},
	"Health": {prepare: ordersAndWorker, use: func(ctx context.Context, client, _ *nats.Client) error {
		h := client.Health(ctx)
		if !h.OK {
			return errors.New(strings.Join(h.Problems, "; "))
		}
		return nil
	}},
}

// rightsLog is a server's log that knows what the page's user has asked for and what was refused.
type rightsLog struct {
	mu     sync.Mutex
	used   map[string][]string // by "publish" and "subscribe"
	denied []string
}

const pageClient = "page-user" // the name of its connection, which the server logs

var tracedOperation = regexp.MustCompile(`"[^"]*` + pageClient + `".*<<- \[(H?PUB|SUB) (\S+)`)

func (l *rightsLog) write(format string, v []any) {
	line := fmt.Sprintf(format, v...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if found := tracedOperation.FindStringSubmatch(line); found != nil {
		kind := "publish"
		if found[1] == "SUB" {
			kind = "subscribe"
		}
		l.used[kind] = append(l.used[kind], found[2])
	}
	if strings.Contains(line, "Violation") {
		l.denied = append(l.denied, line)
	}
}

func (l *rightsLog) Tracef(format string, v ...any) { l.write(format, v) }
func (l *rightsLog) Errorf(format string, v ...any) { l.write(format, v) }
func (l *rightsLog) Fatalf(format string, v ...any) { l.write(format, v) }
func (*rightsLog) Noticef(string, ...any)           {}
func (*rightsLog) Warnf(string, ...any)             {}
func (*rightsLog) Debugf(string, ...any)            {}

// unused returns the rights that were not.
func (l *rightsLog) unused(kind string, rights *server.SubjectPermission) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(rights.Allow), func(right string) bool {
		return slices.ContainsFunc(l.used[kind], func(used string) bool { return subject.Covers(right, used) })
	})
}

// sections returns the configuration of each section of the page that has one.
func sections(t *testing.T) map[string]string {
	t.Helper()
	heading, found := "", map[string]string{}
	lines := strings.Split(docText(t, permissionsPage), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "#") {
			heading = strings.TrimLeft(line, "# ")
		}
		if line == "```conf" {
			rest := strings.Join(lines[i+1:], "\n")
			found[heading], _, _ = strings.Cut(rest, "```")
		}
	}
	return found
}

// Each section of the page has what its user needs, and not more, in a domain as well: in that of the
// server, and in the one of a hub beyond it.
func TestPermissionsPage(t *testing.T) {
	t.Parallel()
	documented := sections(t)
	assert.ElementsMatch(t, slices.Collect(maps.Keys(capabilities)), slices.Collect(maps.Keys(documented)))
	// As the table of the page has it.
	const told = "    \"$JS.API.INFO\"\n    " // of no use to those who know their domain
	local := []string{told, "    ", "dlq.ORDERS.", "dlq.hub.ORDERS.", "retry.ORDERS.", "retry.hub.ORDERS."}
	far := append(slices.Clone(local), `"$JS.API.`, `"$JS.hub.API.`, `"$KV.`, `"$JS.hub.API.$KV.`)
	for name, can := range capabilities {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkRights(t, documented[name], can, "", "")
			checkRights(t, strings.NewReplacer(local...).Replace(documented[name]), can, "hub", "hub")
			checkRights(t, strings.NewReplacer(far...).Replace(documented[name]), can, "leaf", "hub")
			long := append(slices.Clone(local), `"$JS.ACK.`, `"$JS.ACK.*.*.`)
			checkRights(t, strings.NewReplacer(long...).Replace(documented[name]), can, "hub", "hub", "js_ack_fc_v2")
		})
	}
}

// checkRights runs a capability with the rights of conf on a server of a JetStream domain, in that domain or in
// that of a hub.
func checkRights(t *testing.T, conf string, can capability, domain, in string, flags ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.conf")
	require.NoError(t, os.WriteFile(file, []byte(conf), 0o600))
	page, err := server.ProcessConfigFile(file)
	require.NoError(t, err)
	require.Len(t, page.Users, 1)
	user := page.Users[0]
	permissions := *user.Permissions // the server changes its own
	opt := natstest.WithConfig(func(o *server.Options) {
		o.Users, o.JetStreamDomain = []*server.User{user, {Username: "admin", Password: "admin"}}, domain
		o.FeatureFlags = map[string]bool{}
		for _, flag := range flags {
			o.FeatureFlags[flag] = true
		}
	})
	var s *natstest.Server
	if domain == in {
		s = natstest.RunServer(t, opt)
	} else {
		s = leafPair(t, nil, opt)[domain]
	}
	ctx := within(t, 5*time.Minute)
	login := func(user, password, name string) func(*nats.Config) {
		return func(c *nats.Config) {
			c.Username, c.Password, c.ClientID, c.JetStreamDomain, c.DrainTimeout = user, password, name, in, patience
		}
	}
	admin := connect(t, s, login("admin", "admin", ""))
	eventually(t, "the domain answers", func() bool {
		_, err := admin.JetStream().AccountInfo(within(t, time.Second))
		return err == nil
	})
	if can.prepare != nil {
		require.NoError(t, can.prepare(ctx, admin))
	}
	log := &rightsLog{used: map[string][]string{}}
	s.Embedded().SetLogger(log, false, true)
	client := connect(t, s, login(user.Username, user.Password, pageClient))
	assert.NoError(t, can.use(ctx, client, admin), "domain %q in %q", domain, in)
	require.NoError(t, client.Close())
	log.mu.Lock()
	log.denied = slices.DeleteFunc(log.denied, func(line string) bool {
		// Where an acknowledgement takes its time, its stream is looked for.
		return can.denied != "" && strings.Contains(line, can.denied) || strings.Contains(line, "STREAM.NAMES")
	})
	assert.Empty(t, log.denied, "domain %q in %q", domain, in)
	log.mu.Unlock()
	if domain != "" && domain == in { // the server has traced the subjects that it maps to its own
		for i, used := range log.used["publish"] {
			log.used["publish"][i] = strings.NewReplacer("$JS.hub.API.$KV.", "$KV.", "$JS.hub.API.", "$JS.API.").Replace(used)
		}
	}
	for kind, rights := range map[string]*server.SubjectPermission{"publish": permissions.Publish, "subscribe": permissions.Subscribe} {
		assert.Empty(t, log.unused(kind, rights), "domain %q in %q: no need to %s", domain, in, kind)
	}
}
