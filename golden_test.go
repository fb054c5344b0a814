package nats_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
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

var updateGolden = flag.Bool("update", false, "write testdata/errors.golden, or api/v0.txt, anew")

// Texts of errors are read by people and searched for in logs. A change of one is made on purpose:
// run the test with -update and look at the difference.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.MaxPayload = 1024
		o.Users = []*server.User{{Username: "u", Password: "secret", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Deny: []string{"denied.>"}},
		}}}
	}))
	withUser := func(cfg *nats.Config) { cfg.Username, cfg.Password = "u", "secret" }
	client := connect(t, s, withUser)
	without := connect(t, s, func(cfg *nats.Config) { withUser(cfg); cfg.JetStreamEnabled = false })
	closed := connect(t, s, withUser)
	require.NoError(t, closed.Close())
	stopped := natstest.RunServer(t)
	away := connect(t, stopped, func(cfg *nats.Config) { cfg.PublishWhenDisconnected = "fail" })
	require.NoError(t, away.Conn().SetServerPool([]string{"nats://" + refused})) // the port of a stopped server may become another one's
	stopped.Stop()
	eventually(t, "refused", func() bool { return errors.Is(away.Stats().ConnectError, syscall.ECONNREFUSED) })

	ctx := within(t, time.Minute)
	soon := within(t, 0)
	handle := func(*nats.Message) error { return nil }
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxMsgs: 100})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "billing"})
	require.NoError(t, err)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "FULL", Subjects: []string{"full"}, MaxMsgs: 1, Discard: jetstream.DiscardNew})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "full", nil)
	require.NoError(t, err)
	kv, err := client.CreateKeyValue(ctx, "settings", nats.WithKeyHistory(5))
	require.NoError(t, err)
	_, err = kv.Put(ctx, "key", []byte("1"))
	require.NoError(t, err)
	store, err := client.CreateObjectStore(ctx, "files", nats.WithObjectStoreTTL(time.Hour))
	require.NoError(t, err)
	big := make([]byte, 2048)

	path := filepath.Join("testdata", "errors.golden")
	golden, err := os.ReadFile(path)
	require.NoError(t, err)
	var now bytes.Buffer
	say := func(what string, err error) {
		if assert.Error(t, err, what) {
			text := fmt.Sprintf("%s\n\t%s\n", what, anonymous(err.Error()))
			now.WriteString(text)
			assert.NotEqual(t, nats.KindUnknown, nats.KindOf(err), text)
			assert.True(t, *updateGolden || bytes.Contains(golden, []byte(text)), "another text: %s", text)
		}
	}
	_, err = nats.NewClient(&nats.Config{URLs: []string{"http://u:secret@a", "nats://a b"}, Timeout: -1, Token: "secret", Username: "u"})
	say("a configuration that cannot work", err)
	_, err = nats.NewClientContext(ctx, &nats.Config{URLs: []string{s.URL()}, Username: "u", Password: "wrong"})
	say("wrong password", err)
	_, err = nats.NewClientContext(within(t, 4*time.Second), &nats.Config{URLs: []string{"nats://" + refused}, Timeout: 2 * time.Second})
	say("nobody listens", err)

	say("publish: empty subject", client.Publish(ctx, "", nil))
	say("publish: blank", client.Publish(ctx, "a b", nil))
	say("publish: wildcard", client.Publish(ctx, "a.*", nil))
	say("publish: too long", client.Publish(ctx, strings.Repeat("x", 5000), nil))
	say("publish: header", client.PublishMsg(ctx, &nats.Message{Subject: "a", Header: natsgo.Header{"a": {"x\r\ny"}}}))
	say("publish: nil message", client.PublishMsg(ctx, nil))
	say("publish: reply", client.PublishWithReply(ctx, "a", "b c", nil))
	say("publish: too large", client.Publish(ctx, "a", big))
	say("publish: context has ended", client.Publish(soon, "a", nil))
	say("publish: closed", closed.Publish(ctx, "a", nil))
	say("publish: away", away.Publish(ctx, "a", nil))
	say("publish: no JSON", client.PublishJSON(ctx, "a", make(chan int)))

	say("subscribe: nil handler", second(client.Subscribe(ctx, "a", nil)))
	say("subscribe: bad subject", second(client.Subscribe(ctx, "a..b", handle)))
	say("subscribe: bad queue", second(client.QueueSubscribe(ctx, "a", "q q", handle)))
	say("subscribe: denied", second(client.Subscribe(ctx, "denied.x", handle)))
	say("subscribe: closed", second(closed.Subscribe(ctx, "a", handle)))
	say("respond: no reply", (&nats.Message{Subject: "a"}).Respond(nil))
	say("decode JSON", (&nats.Message{Subject: "a", Data: []byte("{")}).DecodeJSON(new(int)))

	say("request: no responders", second(client.Request(ctx, "nobody", nil, patience)))
	say("request: away", second(away.Request(ctx, "a", nil, 20*time.Millisecond)))
	say("request: no context", second(client.Request(nil, "a", nil, 0))) //nolint:staticcheck // the mistake that is tested

	say("JetStream disabled", second(without.PublishToStream(ctx, "orders.1", nil)))
	say("stream: bad name", second(client.CreateStream(ctx, &jetstream.StreamConfig{Name: "a.b"})))
	say("stream: not found", second(client.GetStream(ctx, "MISSING")))
	say("stream: exists", second(client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"other"}})))
	say("stream: drift", second(client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.a"}, MaxMsgs: 5})))
	say("stream: publish to none", second(client.PublishToStream(ctx, "nowhere", nil)))
	say("stream: full", second(client.PublishToStream(ctx, "full", nil)))
	say("stream: wrong sequence", second(client.PublishToStream(ctx, "orders.1", nil, jetstream.WithExpectLastSequence(7))))
	say("stream: reserved header", second(client.PublishMsgToStream(ctx, &nats.Message{Subject: "orders.1", Header: natsgo.Header{"Nats-Rollup": {"all"}}})))
	say("stream: too large", second(client.PublishToStream(ctx, "orders.1", big)))
	say("consumer: not found", second(client.GetConsumer(ctx, "ORDERS", "missing")))
	say("consumer: drift", second(client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "billing", MaxDeliver: 3, DeliverPolicy: jetstream.DeliverNewPolicy})))
	say("pull: limit", second(client.PullMessages(ctx, "ORDERS", "billing", 0)))
	say("pull: no consumer", second(client.PullMessages(ctx, "ORDERS", "missing", 1)))
	say("consume: no consumer", second(client.Consume(ctx, "ORDERS", "missing", handle)))
	say("consume: differs", second(client.Consume(ctx, "ORDERS", "billing", handle, nats.WithConsumerConfig(&jetstream.ConsumerConfig{AckWait: time.Second}))))
	say("consumer: differs", second(client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "billing", FilterSubject: "orders.new"})))
	say("TLS: closed", second(closed.TLSConnectionState()))
	say("TLS: away", second(away.TLSConnectionState()))
	say("ack: not JetStream", (&nats.Message{Subject: "a"}).Ack())

	say("bucket: not found", second(client.GetKeyValue(ctx, "missing")))
	say("bucket: bad name", second(client.CreateKeyValue(ctx, "a b")))
	say("bucket: differs", second(client.CreateKeyValue(ctx, "settings", nats.WithKeyHistory(9))))
	say("bucket: drift", second(client.EnsureKeyValue(ctx, "settings", nats.WithKeyHistory(2))))
	say("key: not found", second(kv.Get(ctx, "missing")))
	say("key: bad", second(kv.Put(ctx, "a b", nil)))
	say("key: too long", second(kv.Put(ctx, strings.Repeat("x", 5000), nil)))
	say("key: exists", second(kv.Create(ctx, "key", nil)))
	say("key: conflict", second(kv.Update(ctx, "key", nil, 77)))
	say("key: too large", second(kv.Put(ctx, "key", big)))
	say("object: not found", second(store.Get(ctx, "missing")))
	say("object bucket: not found", second(client.GetObjectStore(ctx, "missing")))
	say("object bucket: differs", second(client.CreateObjectStore(ctx, "files")))
	say("object bucket: drift", second(client.EnsureObjectStore(ctx, "files", nats.WithObjectStoreTTL(time.Minute))))

	if *updateGolden {
		require.NoError(t, os.WriteFile(path, now.Bytes(), 0o600))
	} else if !t.Failed() {
		assert.Equal(t, string(golden), now.String(), "a text is gone")
	}
}

var address = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// anonymous leaves out what differs from one run to the next.
func anonymous(text string) string { return address.ReplaceAllString(text, "SERVER") }
