package nats_test

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
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

// A line as long as the server takes goes through, and the client refuses one that is a byte longer.
// The server, asked by a connection of its own, closes it: it counts as the client does.
func TestLinesAreCountedAsTheServerCountsThem(t *testing.T) {
	t.Parallel()
	header := natsgo.Header{"Key": {"value"}} // 10 + 12 + 2 bytes
	reply := strings.Repeat("r", 500)
	for _, limit := range []int{1024, 4096, 10000} {
		s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxControlLine = int32(limit) }))
		events := &eventLog{}
		client := connect(t, s, func(c *nats.Config) { c.MaxControlLine = limit }, nats.WithEventHandler(events.handle))
		received := make(chan string, 10)
		sub, err := client.Subscribe(t.Context(), ">", func(m *nats.Message) error {
			received <- m.Subject
			return nil
		})
		require.NoError(t, err)
		for _, test := range []struct {
			name string
			rest int // of the line
			msg  nats.Message
		}{
			{"PUB", len(" 5"), nats.Message{Data: []byte("12345")}},
			{"PUB with two digits", len(" 12"), nats.Message{Data: make([]byte, 12)}},
			{"PUB with reply", len(" " + reply + " 5"), nats.Message{Reply: reply, Data: []byte("12345")}},
			{"HPUB", len(" 24 29"), nats.Message{Header: header, Data: []byte("12345")}},
			{"HPUB with three digits", len(" 24 100"), nats.Message{Header: header, Data: make([]byte, 76)}},
			{"HPUB with reply", len(" " + reply + " 24 29"), nats.Message{Reply: reply, Header: header, Data: []byte("12345")}},
		} {
			for _, length := range []int{limit - 1, limit, limit + 1} {
				what := fmt.Sprintf("%s, line of %d, limit %d", test.name, length, limit)
				msg := test.msg
				msg.Subject = strings.Repeat("s", length-test.rest)
				err := client.PublishMsg(t.Context(), &msg)
				if length <= limit {
					require.NoError(t, err, what)
					assert.Equal(t, msg.Subject, <-received, what)
					continue
				}
				require.ErrorIs(t, err, nats.ErrInvalidSubject, what)
				require.ErrorContains(t, err, fmt.Sprintf("a protocol line of %d bytes, and max_control_line is %d", length, limit))
				assert.True(t, closes(t, s, func(nc *natsgo.Conn) error {
					return nc.PublishMsg(&natsgo.Msg{Subject: msg.Subject, Reply: msg.Reply, Header: msg.Header, Data: msg.Data})
				}), what)
			}
		}
		require.NoError(t, sub.Unsubscribe())

		// The number of a subscription may have nine digits.
		for _, queue := range []string{"", "q"} {
			longest := strings.Repeat("s", limit-len(queue)-len("  123456789"))
			subscribe := func(subject string) error {
				sub, err := client.QueueSubscribe(t.Context(), subject, queue, func(*nats.Message) error { return nil })
				if queue == "" {
					sub, err = client.Subscribe(t.Context(), subject, func(*nats.Message) error { return nil })
				}
				if err == nil {
					_ = sub.Unsubscribe()
				}
				return err
			}
			require.NoError(t, subscribe(longest))
			require.ErrorContains(t, subscribe(longest+"s"), fmt.Sprintf("line of %d bytes, and max_control_line is %d", limit+1, limit))
			assert.False(t, closes(t, s, func(nc *natsgo.Conn) error {
				_, err := nc.QueueSubscribeSync(longest+strings.Repeat("s", 8), queue)
				return err
			}), "its number has one digit")
			assert.True(t, closes(t, s, func(nc *natsgo.Conn) error {
				_, err := nc.QueueSubscribeSync(longest+strings.Repeat("s", 9), queue)
				return err
			}))
		}
		require.NoError(t, client.Ping(t.Context()))
		assert.Empty(t, events.of(nats.EventDisconnected))
	}
}

// closes tells whether the server closes the connection that does this.
func closes(t *testing.T, s *natstest.Server, do func(*natsgo.Conn) error) bool {
	t.Helper()
	nc := raw(t, s, natsgo.NoReconnect(), natsgo.ErrorHandler(func(*natsgo.Conn, *natsgo.Subscription, error) {}))
	defer nc.Close()
	require.NoError(t, do(nc))
	return nc.FlushTimeout(patience) != nil
}

// Whatever is given a name that is too long refuses it, with the key that says how long it may be, and
// the client stays as it is for everybody else.
func TestNamesThatAreTooLong(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	events := &eventLog{}
	client := connect(t, s, nil, nats.WithEventHandler(events.handle))
	ctx := within(t, time.Minute)
	newStream(t, client, 1)
	kv := newKeys(t, client, "b")
	store, err := client.CreateObjectStore(ctx, "o")
	require.NoError(t, err)
	info, err := store.PutString(ctx, "there", "v")
	require.NoError(t, err)
	long := strings.Repeat("x", 5000)
	subject := "orders." + long
	msg := &nats.Message{Subject: subject}
	handle := func(*nats.Message) error { return nil }
	first := func(seq func(func(*nats.Message, error) bool)) error {
		for _, err := range seq {
			return err
		}
		return nil
	}
	lines := map[string]error{
		"Publish":            client.Publish(ctx, subject, nil),
		"PublishMsg":         client.PublishMsg(ctx, msg),
		"PublishJSON":        client.PublishJSON(ctx, subject, 1),
		"PublishWithReply":   client.PublishWithReply(ctx, "a", long, nil),
		"Request":            second(client.Request(ctx, subject, nil, patience)),
		"RequestMsg":         second(client.RequestMsg(ctx, msg, patience)),
		"Subscribe":          second(client.Subscribe(ctx, subject, handle)),
		"QueueSubscribe":     second(client.QueueSubscribe(ctx, "a", long, handle)),
		"Messages":           first(client.Messages(ctx, subject)),
		"PublishToStream":    second(client.PublishToStream(ctx, subject, nil)),
		"PublishMsgToStream": second(client.PublishMsgToStream(ctx, msg)),
		"PublishAsync":       second(client.PublishAsync(ctx, msg)),
		"PublishBatch":       second(client.PublishBatch(ctx, []*nats.Message{msg})),
		"PublishAtomic":      second(client.PublishAtomic(ctx, []*nats.Message{{Subject: "orders.1"}, msg})),
		"CreateConsumer":     second(client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "c", FilterSubject: subject})),
		"EnsureConsumer":     second(client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "c", FilterSubjects: []string{subject}})),
		"ReadStream":         first(client.ReadStream(ctx, "ORDERS", nats.WithReadFilter(subject))),
		"Consume":            second(client.Consume(ctx, "ORDERS", "c", handle, nats.WithDeadLetter(long))),

		"Get": second(kv.Get(ctx, long)), "Put": second(kv.Put(ctx, long, nil)), "Create": second(kv.Create(ctx, long, nil)),
		"Update": second(kv.Update(ctx, long, nil, 1)), "Delete": kv.Delete(ctx, long), "Purge": kv.Purge(ctx, long),
		"GetRevision": second(kv.GetRevision(ctx, long, 1)), "GetMany": second(kv.GetMany(ctx, "a", long)),
		"History": second(kv.History(ctx, long)), "Watch": second(kv.Watch(ctx, long+".>")), "Lock": second(kv.Lock(ctx, long, time.Second)),
		"Modify": second(kv.Modify(ctx, long, func(b []byte) ([]byte, error) { return b, nil })),
		"Cached": second(kv.Cached(ctx, long+".*")), "ListKeysFiltered": second(kv.ListKeysFiltered(ctx, long)),
		"Elect": kv.Elect(ctx, long, func(context.Context) error { return nil }),

		"object Put": second(store.PutString(ctx, long, "v")), "object Get": second(store.GetBytes(ctx, long)),
		"object GetInfo": second(store.GetInfo(ctx, long)), "object Delete": store.Delete(ctx, long),
		"object rename": store.UpdateMeta(ctx, "there", jetstream.ObjectMeta{Name: long}),
		"AddLink":       second(store.AddLink(ctx, long, info)), "AddBucketLink": second(store.AddBucketLink(ctx, long, store)),
	}
	names := map[string]error{
		"CreateStream": second(client.CreateStream(ctx, &jetstream.StreamConfig{Name: long})), "GetStream": second(client.GetStream(ctx, long)),
		"EnsureStream": second(client.EnsureStream(ctx, &jetstream.StreamConfig{Name: long})), "DeleteStream": client.DeleteStream(ctx, long),
		"PurgeStream": client.PurgeStream(ctx, long), "GetConsumer": second(client.GetConsumer(ctx, long, "c")),
		"consumer's name": second(client.GetConsumer(ctx, "ORDERS", long)), "PullMessages": second(client.PullMessages(ctx, long, "c", 1)),
		"Consume": second(client.Consume(ctx, "ORDERS", long, handle)), "PauseConsumer": client.PauseConsumer(ctx, "ORDERS", long, time.Now()),
		"CreateKeyValue": second(client.CreateKeyValue(ctx, long)), "GetKeyValue": second(client.GetKeyValue(ctx, long)),
		"EnsureKeyValue": second(client.EnsureKeyValue(ctx, long)), "DeleteKeyValue": client.DeleteKeyValue(ctx, long),
		"CreateObjectStore": second(client.CreateObjectStore(ctx, long)), "GetObjectStore": second(client.GetObjectStore(ctx, long)),
		"EnsureObjectStore": second(client.EnsureObjectStore(ctx, long)), "DeleteObjectStore": client.DeleteObjectStore(ctx, long),
		"ReplayDeadLetters": second(client.ReplayDeadLetters(ctx, long)),
	}
	for call, err := range lines {
		require.ErrorContains(t, err, "and max_control_line is 4096", call)
	}
	for call, err := range names {
		require.ErrorIs(t, err, nats.ErrInvalidArgument, call)
		require.ErrorContains(t, err, "bytes, not 5000", call)
	}
	for _, err := range slices.Concat(slices.Collect(maps.Values(lines)), slices.Collect(maps.Values(names))) {
		assert.Less(t, len(err.Error()), 600, err)
	}
	require.NoError(t, client.Ping(ctx))
	assert.Empty(t, events.of(nats.EventDisconnected))
}

// What Get could not ask for, Put refuses: every call works with the longest key and the longest name
// that it takes, and with no longer one.
func TestTheLongestNameThatIsTakenServesEveryCall(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxControlLine, o.JetStreamDomain = 1024, "hub" }))
	for _, domain := range []string{"", "hub"} {
		events := &eventLog{}
		client := connect(t, s, func(c *nats.Config) { c.MaxControlLine, c.JetStreamDomain = 1024, domain }, nats.WithEventHandler(events.handle))
		ctx := within(t, time.Minute)

		kv, err := client.EnsureKeyValue(ctx, "b", nats.WithKeyTTLs(time.Minute))
		require.NoError(t, err)
		key := longest(func(key string) error { return second(kv.Put(ctx, key, []byte("v"))) })
		assert.Greater(t, len(key), 800)
		use := map[string]func(string) error{
			"get":     func(key string) error { return second(kv.Get(ctx, key)) },
			"history": func(key string) error { return second(kv.History(ctx, key)) },
			"many":    func(key string) error { return second(kv.GetMany(ctx, key)) },
			"watch": func(key string) error {
				w, err := kv.Watch(ctx, key)
				if err == nil {
					<-w.Updates()
					err = w.Stop()
				}
				return err
			},
			"delete": func(key string) error { return kv.Delete(ctx, key) },
			"purge":  func(key string) error { return kv.Purge(ctx, key) },
			"lock": func(key string) error {
				lock, err := kv.Lock(ctx, key, time.Second)
				if err == nil {
					err = lock.Unlock(ctx)
				}
				return err
			},
		}
		for _, call := range []string{"get", "history", "many", "watch", "delete", "purge", "lock"} {
			require.NoError(t, use[call](key), call)
			require.ErrorContains(t, use[call](key+"x"), "max_control_line", call)
		}

		store, err := client.EnsureObjectStore(ctx, "o")
		require.NoError(t, err)
		name := longest(func(name string) error { return second(store.PutString(ctx, name, "v")) })
		assert.Greater(t, len(name), 600)
		text, err := store.GetString(ctx, name)
		require.NoError(t, err)
		assert.Equal(t, "v", text)
		require.NoError(t, second(store.GetInfo(ctx, name)))
		require.NoError(t, second(store.ObjectStore.GetInfo(ctx, name)), "upstream's way")
		require.NoError(t, store.UpdateMeta(ctx, name, jetstream.ObjectMeta{Name: name, Description: "text"}))
		require.NoError(t, store.Delete(ctx, name))

		stream, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S" + domain, Subjects: []string{"s" + domain + ".>"}})
		require.NoError(t, err)
		subject := longest(func(name string) error { return second(client.PublishToStream(ctx, "s"+domain+"."+name, nil)) })
		assert.Greater(t, len(subject), 900)
		require.NoError(t, second(client.PublishAsync(ctx, &nats.Message{Subject: "s" + domain + "." + subject})))
		filter := longest(func(name string) error {
			return second(client.CreateConsumer(ctx, "S"+domain, &jetstream.ConsumerConfig{FilterSubject: "s" + domain + "." + name}))
		})
		assert.Greater(t, len(filter), 500)
		require.NoError(t, second(stream.Info(ctx)))
		assert.Empty(t, events.of(nats.EventDisconnected))
	}
}

// longest returns the longest name that call takes.
func longest(call func(name string) error) string {
	const most = 1024
	least, refused := 0, most
	for refused-least > 1 {
		if middle := (least + refused) / 2; call(strings.Repeat("x", middle)) == nil {
			least = middle
		} else {
			refused = middle
		}
	}
	return strings.Repeat("x", least)
}

// Of a payload that is too large both sizes are told, headers included.
func TestPayloadTooLargeTellsBothSizes(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPayload = 1000 }))
	client := connect(t, s, nil)
	ctx := within(t, time.Minute)
	newStream(t, client, 1)
	kv := newKeys(t, client, "b")
	data := make([]byte, 2000)
	msg := &nats.Message{Subject: "orders.1", Header: natsgo.Header{"Key": {"value"}}, Data: data} // 24 bytes
	for call, err := range map[string]error{
		"Publish":         client.Publish(ctx, "a", data),
		"Request":         second(client.Request(ctx, "a", data, patience)),
		"PublishMsg":      client.PublishMsg(ctx, msg),
		"RequestMsg":      second(client.RequestMsg(ctx, msg, patience)),
		"PublishToStream": second(client.PublishToStream(ctx, "orders.1", data)),
		"PublishAsync":    second(client.PublishAsync(ctx, msg)),
		"PublishAtomic":   second(client.PublishAtomic(ctx, []*nats.Message{msg})),
		"Put":             second(kv.Put(ctx, "k", data)),
	} {
		require.ErrorIs(t, err, nats.ErrPayloadTooLarge, call)
		require.ErrorIs(t, err, natsgo.ErrMaxPayload, call)
		assert.Regexp(t, `: payload too large: 2[01][0-9]{2} bytes, and the server's max_payload is 1000: `, err.Error(), call)
	}
	require.ErrorContains(t, client.PublishMsg(ctx, msg), "2024 bytes")

	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "SMALL", Subjects: []string{"small"}, MaxMsgSize: 100})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "small", data[:500])
	require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
	assert.Regexp(t, `payload too large: 5[0-9]{2} bytes, and the stream's max_msg_size is 100: `, err.Error())
}

// A question of many keys is asked in parts that the server takes.
func TestManyKeysThroughASmallMaxPayload(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPayload = 2000 }))
	client := connect(t, s, nil)
	kv := newKeys(t, client, "b")
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%d", strings.Repeat("k", 50), i)
	}
	put(t, kv, keys[7], "v")
	entries, err := kv.GetMany(within(t, time.Minute), keys...)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	assert.Equal(t, "v", string(entries[keys[7]].Value()))
}

// Credentials may be longer than a server takes, which only its administrator can change.
func TestCredentialsTooLongForTheServer(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	told := regexp.MustCompile(`CONNECT with a token has 5\d{3} bytes; raise the server's max_control_line`)
	eventually(t, "told what to do", func() bool { // unless the end of the connection overtakes the server's text
		_, err := nats.NewClientContext(within(t, 5*time.Second), &nats.Config{URLs: []string{s.URL()}, Token: strings.Repeat("x", 5000)})
		require.ErrorIs(t, err, nats.ErrNotConnected)
		return told.MatchString(err.Error())
	})
}

// accountLimited runs a server on which the user u has an account with limits.
func accountLimited(t *testing.T, limits string) *natstest.Server {
	t.Helper()
	var parsed server.Options
	require.NoError(t, parsed.ProcessConfigString(`accounts { A { jetstream: enabled, limits: {`+limits+`}, users: [{user: u, password: p}] } }`))
	return natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.Accounts, o.Users = parsed.Accounts, parsed.Users }))
}

// An account may allow less than its server does, which the server tells when it knows the user.
func TestMaxPayloadOfAnAccount(t *testing.T) {
	t.Parallel()
	const most = 5000
	client := connect(t, accountLimited(t, fmt.Sprint("max_payload: ", most)), as("u"))
	ctx := within(t, time.Minute)
	require.NoError(t, client.Ping(ctx))
	require.ErrorContains(t, client.Publish(ctx, "a", make([]byte, 2*most)), fmt.Sprint("max_payload is ", most))
	kv := newKeys(t, client, "b")
	keys := make([]string, 200)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%d", strings.Repeat("k", 50), i)
	}
	put(t, kv, keys[7], "v")
	entries, err := kv.GetMany(ctx, keys...)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	_, err = newObjects(t, client, "files").PutBytes(ctx, "o", make([]byte, 100_000))
	require.NoError(t, err)
}
