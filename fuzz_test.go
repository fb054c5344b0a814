package nats_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// said is what something that is not JetStream answers.
type said struct {
	head  string // lines of headers
	data  string
	reply string
}

func (a said) msg() *natsgo.Msg {
	m := &natsgo.Msg{Reply: a.reply, Data: []byte(a.data)}
	for line := range strings.SplitSeq(a.head, "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			if m.Header == nil {
				m.Header = natsgo.Header{}
			}
			m.Header.Add(name, value)
		}
	}
	return m
}

// truths are answers of a real server, by what was asked.
func truths(f *testing.F) map[string]said {
	s := natstest.RunServer(f)
	client := connect(f, s, nil)
	ctx := f.Context()
	bucket, err := client.CreateKeyValue(ctx, "B")
	require.NoError(f, err)
	_, err = bucket.PutString(ctx, "k", "v")
	require.NoError(f, err)
	store, err := client.CreateObjectStore(ctx, "B")
	require.NoError(f, err)
	_, err = store.PutString(ctx, "o", "content")
	require.NoError(f, err)
	nc := raw(f, s)
	all := map[string]said{}
	for subject, question := range map[string]string{
		"STREAM.INFO.KV_B": "", "STREAM.INFO.OBJ_B": "", "STREAM.MSG.GET.OBJ_B": `{"seq":2}`, "DIRECT.GET.KV_B.$KV.B.k": "", "CONSUMER.LIST.KV_B": "", "STREAM.NAMES": "",
		"CONSUMER.CREATE.KV_B": `{"stream_name":"KV_B","config":{"deliver_policy":"all","ack_policy":"none","mem_storage":true,"inactive_threshold":1000000000}}`,
	} {
		m, err := nc.Request("$JS.API."+subject, []byte(question), 5*time.Second)
		require.NoError(f, err)
		var head strings.Builder
		for name, values := range m.Header {
			head.WriteString(name + ":" + values[0] + "\n")
		}
		all[subject] = said{head: head.String(), data: string(m.Data)}
	}
	return all
}

// Whatever answers in JetStream's place, each call ends with its context.
func FuzzJetStream(f *testing.F) {
	truth := truths(f)
	for _, a := range truth {
		f.Add(a.head, a.data, "")
	}
	for _, a := range []said{
		{}, {data: "null"}, {data: "{}"}, {data: "[1]"}, {data: `{"error":{}}`}, {data: `{"error":{"code":503,"err_code":10008}}`}, {head: "Status:503"}, {head: "Status:409\nDescription:Leadership Change"},
		{head: "Status:100\nNats-Last-Consumer:99999999999999999999"}, {head: "Nats-Sequence:1\nNats-Time-Stamp:2026-01-02T03:04:05Z\nNats-Subject:$KV.B", data: "x"}, {head: "Status:204\nNats-Num-Pending:0"},
		{data: `{"name":"o","nuid":"N","chunks":4294967295,"size":18446744073709551615}`, reply: "r"}, {data: `{"stream":"S","seq":1,"batch":"x","count":-1}`}, {data: "x", reply: "a b"}, {data: "x", reply: "r"},
		{data: `{"config":{"name":"KV_B"},"state":{"subjects":{"":1}},"total":9999999,"offset":-1,"limit":0,"streams":null,"consumers":[null]}`},
	} {
		f.Add(a.head, a.data, a.reply)
	}

	s := natstest.RunServer(f, natstest.WithConfig(func(o *server.Options) { o.JetStream = false }))
	nc := raw(f, s, natsgo.ErrorHandler(func(*natsgo.Conn, *natsgo.Subscription, error) {})) // a reply may be forbidden
	var lie atomic.Pointer[said]
	for _, subject := range []string{"$JS.API.>", "$JS.ACK.>", "$KV.>", "$O.>", "s.>"} {
		_, err := nc.Subscribe(subject, func(m *natsgo.Msg) {
			answer, ok := truth[strings.TrimPrefix(m.Subject, "$JS.API.")]
			if a := lie.Load(); a != nil {
				answer, ok = *a, true
			}
			if ok && m.Reply != "" {
				out := answer.msg()
				out.Subject = m.Reply
				_ = nc.PublishMsg(out) // what cannot be sent is not answered
			}
		})
		require.NoError(f, err)
	}
	require.NoError(f, nc.Flush())
	client := connect(f, s, nil)
	bucket, err := client.GetKeyValue(f.Context(), "B")
	require.NoError(f, err)
	store, err := client.GetObjectStore(f.Context(), "B")
	require.NoError(f, err)

	f.Fuzz(func(t *testing.T, head, data, reply string) {
		lie.Store(&said{head, data, reply})
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var calls sync.WaitGroup
		for _, call := range []func(){
			func() { _, _ = client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}) },
			func() { _, _ = client.EnsureConsumer(ctx, "S", &jetstream.ConsumerConfig{Durable: "C"}) },
			func() { _, _ = client.GetStreamInfo(ctx, "S") },
			func() { _, _ = client.GetConsumerInfo(ctx, "S", "C") },
			func() { _, _ = client.GetMessage(ctx, "S", 1) },
			func() { take(client.GetLastMessages(ctx, "S", "s")) },
			func() { take(client.Streams(ctx)) },
			func() { take(client.KeyValues(ctx)) },
			func() { take(client.ReadStream(ctx, "S")) },
			func() { _, _ = client.PublishToStream(ctx, "s.x", nil) },
			func() { _, _ = client.PublishAtomic(ctx, []*nats.Message{{Subject: "s.x"}, {Subject: "s.x"}}) },
			func() { _, _ = client.PublishAsync(ctx, &nats.Message{Subject: "s.x"}) },
			func() { _, _ = client.PullMessages(ctx, "S", "C", 2) },
			func() { _, _ = client.ReplayDeadLetters(ctx, "S") },
			func() { _ = client.Health(ctx) },
			func() {
				if c, err := client.Consume(ctx, "S", "C", func(*nats.Message) error { return errPoison }); err == nil {
					_ = c.Stop(ctx)
				}
			},
			func() { _, _ = bucket.Get(ctx, "k") },
			func() { _, _ = bucket.GetMany(ctx, "k", "l") },
			func() { _, _ = bucket.Put(ctx, "k", nil) },
			func() { _, _ = bucket.Create(ctx, "k", nil) },
			func() { _ = bucket.Delete(ctx, "k") },
			func() { take(bucket.Keys(ctx)) },
			func() { take(bucket.Changes(ctx)) },
			func() { _, _ = bucket.History(ctx, "k") },
			func() { _, _ = bucket.Status(ctx) },
			func() { _, _ = bucket.Lock(ctx, "k", time.Second) },
			func() { _, _ = store.GetBytes(ctx, "o") },
			func() { _, _ = store.GetInfo(ctx, "o") },
			func() { _, _ = store.PutString(ctx, "o", "x") },
			func() { _, _ = store.List(ctx) },
			func() { _ = store.Delete(ctx, "o") },
			func() { _ = store.UpdateMeta(ctx, "o", jetstream.ObjectMeta{Name: "p"}) },
			func() { _, _ = store.Sweep(ctx, time.Hour) },
		} {
			calls.Go(call)
		}
		calls.Wait()
		require.Less(t, since(began), 20*time.Second)
	})
}

// take ranges over what there is, to a bound.
func take[T any](all func(yield func(T, error) bool)) {
	n := 0
	for _, err := range all {
		if n++; n == 1000 || err != nil {
			return
		}
	}
}
