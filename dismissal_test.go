package nats_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A server that ends a connection says why, and that is what a client tells: not that its connection ended.
func TestDismissalsAreTold(t *testing.T) {
	t.Parallel()
	fresh := func(t *testing.T, change func(*jwt.UserClaims)) (*operator, *natstest.Server, func(*nats.Config)) {
		o := newOperator(t)
		creds, _ := o.creds(change)
		return o, authServer(t, o.demand), func(c *nats.Config) { c.CredsFile, c.JetStreamEnabled = inDir(t, "user.creds", creds), false }
	}
	for name, test := range map[string]struct {
		reason error
		begin  func(t *testing.T) (s *natstest.Server, change func(*nats.Config), dismiss func())
	}{
		"the server is full": {natsgo.ErrMaxConnectionsExceeded, func(t *testing.T) (*natstest.Server, func(*nats.Config), func()) {
			var configured *server.Options
			s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { configured = o }))
			return s, nil, func() {
				o := configured.Clone()
				o.MaxConn = -1
				require.NoError(t, s.Embedded().ReloadOptions(o))
			}
		}},
		"the account is full": {natsgo.ErrMaxAccountConnectionsExceeded, func(t *testing.T) (*natstest.Server, func(*nats.Config), func()) {
			o, s, change := fresh(t, func(*jwt.UserClaims) {})
			return s, change, func() { o.limit(func(c *jwt.AccountClaims) { c.Limits.Conn = 0 }, s) }
		}},
		"the user is revoked": {natsgo.ErrAuthRevoked, func(t *testing.T) (*natstest.Server, func(*nats.Config), func()) {
			o, s, change := fresh(t, func(*jwt.UserClaims) {})
			return s, change, func() { o.limit(func(c *jwt.AccountClaims) { c.Revoke(jwt.All) }, s) }
		}},
		"the user's time is up": {natsgo.ErrAuthExpired, func(t *testing.T) (*natstest.Server, func(*nats.Config), func()) {
			_, s, change := fresh(t, func(c *jwt.UserClaims) { c.Expires = time.Now().Add(8 * time.Second).Unix() })
			return s, change, func() {}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, change, dismiss := test.begin(t)
			var events eventLog
			client := connect(t, s, change, nats.WithEventHandler(events.handle))
			require.NoError(t, client.Publish(context.Background(), "a", []byte("last")))
			require.NoError(t, client.Ping(within(t, patience)))
			dismiss()
			eventually(t, "dismissed", func() bool { return len(events.of(nats.EventDisconnected)) > 0 })
			require.ErrorIs(t, events.of(nats.EventDisconnected)[0].Err, test.reason)
		})
	}
}

// A user whose time is up goes on with new credentials, and with it all that it was doing.
func TestCredentialsThatExpire(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.limit(func(c *jwt.AccountClaims) {
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	})
	s := natstest.RunServer(t, natstest.WithConfig(o.demand))
	long, _ := o.creds()
	file := inDir(t, "user.creds", long)
	var events eventLog
	client := connect(t, s, func(c *nats.Config) { c.CredsFile = file }, nats.WithEventHandler(events.handle))
	other := connect(t, s, func(c *nats.Config) { c.Creds = long })
	ctx := within(t, patience)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	kv := newKeys(t, client, "b")
	var consumed, heard, seen atomic.Int64
	_, err := client.Consume(ctx, "ORDERS", "worker", func(*nats.Message) error { consumed.Add(1); return nil })
	require.NoError(t, err)
	_, err = client.Subscribe(ctx, "plain", func(*nats.Message) error { heard.Add(1); return nil })
	require.NoError(t, err)
	w, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	go func() {
		for range w.Updates() {
			seen.Add(1)
		}
	}()
	renewed := make(chan struct{})
	_, err = other.Subscribe(ctx, "slow", func(m *nats.Message) error { <-renewed; return m.Respond(nil) })
	require.NoError(t, err)
	short, _ := o.creds(func(c *jwt.UserClaims) { c.Expires = time.Now().Add(4 * time.Second).Unix() })
	require.NoError(t, os.WriteFile(file, []byte(short), 0o600))
	require.NoError(t, client.Conn().ForceReconnect())
	require.NoError(t, client.Ping(ctx))
	asked := make(chan error, 1)
	go func() { _, err := client.Request(ctx, "slow", nil, patience); asked <- err }()
	eventually(t, "expired", func() bool { return len(events.of(nats.EventReconnectFailed)) > 0 })
	require.NoError(t, os.WriteFile(file, []byte("neither\n"), 0o600))
	eventually(t, "it is no good", func() bool { return errors.Is(client.Stats().ConnectError, nats.ErrInvalidConfig) })
	require.NoError(t, os.WriteFile(file, []byte(long), 0o600))
	require.NoError(t, client.Ping(ctx)) // its inbox is there again
	close(renewed)
	require.NoError(t, <-asked)
	_, err = client.PublishToStream(ctx, "orders.1", nil)
	require.NoError(t, err)
	require.NoError(t, other.Publish(ctx, "plain", nil))
	put(t, kv, "k", "v")
	eventually(t, "all go on", func() bool { return consumed.Load() > 0 && heard.Load() > 0 && seen.Load() > 0 })
}

// A server may have room for fewer subscriptions than the one before. Which it has none for it does not say, but the
// client does, and asks for room until there is some.
func TestLessRoomForSubscriptions(t *testing.T) {
	t.Parallel()
	const all, most = 10, 6
	s := natstest.RunServer(t, natstest.WithoutJetStream())
	var events eventLog
	client := connect(t, s, func(c *nats.Config) { c.JetStreamEnabled = false }, nats.WithEventHandler(events.handle))
	other := connect(t, s, func(c *nats.Config) { c.JetStreamEnabled = false })
	ctx := within(t, patience)
	var subs []*nats.Subscription
	for i := range all {
		sub, err := client.QueueSubscribe(ctx, fmt.Sprint("many.", i), fmt.Sprint("group", i), func(*nats.Message) error { return nil })
		require.NoError(t, err)
		subs = append(subs, sub)
	}
	s.Restart(natstest.WithConfig(func(o *server.Options) { o.MaxSubs = most }))
	eventually(t, "back", func() bool { return client.Stats().Reconnects > 0 && other.Ping(ctx) == nil && client.Ping(ctx) == nil })
	isRefused := func(sub *nats.Subscription) bool { return errors.Is(sub.Err(), natsgo.ErrMaxSubscriptionsExceeded) }
	refused := slices.DeleteFunc(slices.Clone(subs), func(sub *nats.Subscription) bool { return !isRefused(sub) })
	require.Len(t, refused, all-most)
	eventually(t, "each is told of", func() bool { return len(events.of(nats.EventAsyncError)) == all-most })
	hears := func(sub *nats.Subscription) bool {
		before := sub.Stats().Handled
		require.NoError(t, other.Publish(ctx, sub.Subject(), nil))
		require.NoError(t, other.Ping(ctx)) // the server has it
		require.NoError(t, client.Ping(ctx))
		eventually(t, "handled", func() bool { return client.Stats().Pending+client.Stats().InFlight == 0 })
		return sub.Stats().Handled > before
	}
	var heard []*nats.Subscription
	for _, sub := range subs {
		if !isRefused(sub) {
			eventually(t, "it is heard", func() bool { return hears(sub) })
			heard = append(heard, sub)
		}
	}
	for _, sub := range heard[:len(refused)] {
		require.NoError(t, sub.Unsubscribe())
	}
	for _, sub := range refused {
		eventually(t, "there is room", func() bool { return sub.Err() == nil && hears(sub) })
	}
}
