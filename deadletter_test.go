package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
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

// deadLettersOf returns what is in a dead-letter stream.
func deadLettersOf(t testing.TB, client *nats.Client, stream string) []*nats.DeadLetter {
	t.Helper()
	ctx := context.Background()
	s, err := client.GetStream(ctx, stream)
	if errors.Is(err, nats.ErrStreamNotFound) {
		return nil
	}
	require.NoError(t, err)
	var letters []*nats.DeadLetter
	for seq := max(s.CachedInfo().State.FirstSeq, 1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		require.NoError(t, err)
		letter, err := nats.ReadDeadLetter(&nats.Message{Subject: m.Subject, Header: m.Header, Data: m.Data})
		require.NoError(t, err)
		letters = append(letters, letter)
	}
	return letters
}

func TestPermanentGoesToTheDeadLettersAtOnce(t *testing.T) {
	t.Parallel()
	var events eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle))
	newStream(t, client, 0)
	ctx := context.Background()
	original := &nats.Message{
		Subject: "orders.created", Data: []byte("\x00\xff not text"),
		Header: natsgo.Header{
			"Nats-Msg-Id": {"mine"}, "x-lower": {"kept"}, "X-Two": {"b", "a"}, "Dead-Letter-Reason": {"an older one"},
		},
	}
	before := time.Now().Add(-time.Second)
	ack, err := client.PublishMsgToStream(ctx, original)
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error {
		return fmt.Errorf("order 7:\r\n%w", nats.Permanent(errPoison))
	})
	eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
	idle(t, client)
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 1)
	letter := letters[0]
	assert.Equal(t, original.Subject, letter.Subject)
	assert.Equal(t, original.Header, letter.Header)
	assert.Equal(t, original.Data, letter.Data)
	assert.Equal(t, "ORDERS", letter.Stream)
	assert.Equal(t, ack.Sequence, letter.Sequence)
	assert.Equal(t, "worker", letter.Consumer)
	assert.Equal(t, 1, letter.Deliveries)
	assert.Equal(t, "order 7: poison", letter.Reason)
	for _, at := range []time.Time{letter.Stored, letter.Time} {
		assert.WithinRange(t, at, before, time.Now().Add(time.Second))
	}
	info, err := client.GetStreamInfo(ctx, "ORDERS_DLQ")
	require.NoError(t, err)
	assert.Equal(t, jetstream.LimitsPolicy, info.Config.Retention)
	assert.Equal(t, 30*24*time.Hour, info.Config.MaxAge)
	eventually(t, "the event", func() bool { return len(events.of(nats.EventDeadLetter)) == 1 })
	event := events.of(nats.EventDeadLetter)[0]
	assert.Equal(t, "orders.created", event.Subject)
	assert.Equal(t, "ORDERS", event.Stream)

	_, err = nats.ReadDeadLetter(original)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = nats.ReadDeadLetter(nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Other clients name headers as nats.go does not: their messages are buried with them, and hold up no others.
func TestDeadLettersOfForeignHeaders(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	raw, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
	require.NoError(t, err)
	defer func() { _ = raw.Close() }()
	const header = "NATS/1.0\r\na/b: c\r\nX: y\r\n\r\n"
	_, err = fmt.Fprintf(raw, "CONNECT {\"headers\":true}\r\nHPUB orders.created %d %d\r\n%s\r\n", len(header), len(header), header)
	require.NoError(t, err)
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) })
	eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 1)
	assert.Equal(t, natsgo.Header{"a/b": {"c"}, "X": {"y"}}, letters[0].Header)
	_, err = client.ReplayDeadLetters(t.Context(), "ORDERS")
	require.ErrorIs(t, err, nats.ErrInvalidHeader)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 1, "it stays")
}

// A work queue deletes what is terminated: only the dead letter is left then, and must be there.
func TestDeadLettersOfAWorkQueue(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "ORDERS", Subjects: []string{"orders.>"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.MemoryStorage,
	})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "orders.created", []byte("x"))
	require.NoError(t, err)
	// The server's own limit holds when no other is given.
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxDeliver: 2})
	consume(t, client, func(*nats.Message) error { return errPoison }, nats.WithBackoff(20*time.Millisecond))
	eventually(t, "the original is gone", func() bool {
		info, err := client.GetStreamInfo(ctx, "ORDERS")
		return err == nil && info.State.Msgs == 0
	})
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 1)
	assert.Equal(t, 2, letters[0].Deliveries)
	info, err := client.GetStreamInfo(ctx, "ORDERS_DLQ")
	require.NoError(t, err)
	assert.Equal(t, jetstream.MemoryStorage, info.Config.Storage, "as the original's")
}

// The stream of the dead letters is asked whether it is the one, in a way that does it no harm: nats-server 2.15 gives up
// a stream with replicas for good when a message expects another last ID.
func TestDeadLettersOfACluster(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	client := connect(t, cluster.Servers()[0], nil)
	ctx := within(t, time.Minute)
	for name, subject := range map[string]string{"ORDERS": "orders.>", "ORDERS_DLQ": "dlq.>"} {
		_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: name, Subjects: []string{subject}, Replicas: 3})
		require.NoError(t, err)
	}
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) })
	for range 3 {
		_, err := client.PublishToStream(ctx, "orders.created", nil)
		require.NoError(t, err)
	}
	eventually(t, "the dead letters", func() bool { return consumption.Stats().DeadLettered == 3 })
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 3)
}

// Nothing is lost while dead letters cannot be stored.
func TestDeadLetterStreamDown(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "GRAVES", Subjects: []string{"graves"}, MaxMsgs: 1, Discard: jetstream.DiscardNew,
	})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "graves", nil)
	require.NoError(t, err)
	newStream(t, client, 3)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 500 * time.Millisecond})
	var got calls
	consumption := consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		return nats.Permanent(errPoison)
	}, nats.WithDeadLetter("graves"))
	eventually(t, "all have failed", func() bool { return got.len() == 3 && consumption.Stats().Waiting == 3 })
	time.Sleep(time.Second) // longer than the deadline
	info, err := client.GetConsumerInfo(ctx, "ORDERS", "worker")
	require.NoError(t, err)
	assert.Equal(t, 3, info.NumAckPending)
	lag, err := consumption.Lag(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 3, lag)
	require.NoError(t, client.PurgeStream(ctx, "GRAVES"))
	_, err = client.UpdateStream(ctx, &jetstream.StreamConfig{
		Name: "GRAVES", Subjects: []string{"graves"}, MaxMsgs: 10, Discard: jetstream.DiscardNew,
	})
	require.NoError(t, err)
	idle(t, client)
	assert.Len(t, deadLettersOf(t, client, "GRAVES"), 3)
	assert.Equal(t, 3, got.len(), "kept, not handled again")
	assert.Empty(t, deadLettersOf(t, client, "ORDERS_DLQ"), "not made")
}

// With a subject of one's own that no stream stores, the stream is made for it.
func TestDeadLetterSubjectWithoutStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	poison := func(*nats.Message) error { return nats.Permanent(errPoison) }
	first := consume(t, client, poison)
	idle(t, client)
	require.NoError(t, first.Stop(within(t, patience)))
	consume(t, client, poison, nats.WithDeadLetter("graves.orders"))
	_, err := client.PublishToStream(context.Background(), "orders.created", []byte("1"))
	require.NoError(t, err)
	idle(t, client)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 2)
	info, err := client.GetStreamInfo(context.Background(), "ORDERS_DLQ")
	require.NoError(t, err)
	assert.Equal(t, []string{"dlq.ORDERS.*", "graves.orders"}, info.Config.Subjects)
}

// A stream that stores its own dead letters would consume them.
func TestDeadLettersIntoTheirOwnStreamAreRefused(t *testing.T) {
	t.Parallel()
	var log logBuffer
	client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()))
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) }, nats.WithDeadLetter("orders.dead"))
	eventually(t, "the refusal", func() bool { return strings.Contains(log.String(), "it is the stream") })
	eventually(t, "it waits", func() bool { return consumption.Stats().Waiting == 1 })
}

// A dead letter is stored once, however often its message comes again: here because the server never
// gets to know that the message is done.
func TestDeadLetterIsStoredOnce(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users = []*server.User{{Username: "any", Password: "any"}, {Username: "mute", Password: "mute", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.ACK.>"}},
		}}}
	}))
	admin := connect(t, s, func(c *nats.Config) { c.Username, c.Password = "any", "any" })
	mute := connect(t, s, func(c *nats.Config) { c.Username, c.Password = "mute", "mute" })
	newStream(t, admin, 1)
	newConsumer(t, admin, jetstream.ConsumerConfig{Name: "worker", AckWait: 100 * time.Millisecond})
	var got calls
	consumption := consume(t, mute, func(msg *nats.Message) error {
		got.note(msg)
		return nats.Permanent(errPoison)
	})
	eventually(t, "it came twice", func() bool { return consumption.Stats().DeadLettered >= 2 })
	assert.GreaterOrEqual(t, got.len(), 2)
	assert.Len(t, deadLettersOf(t, admin, "ORDERS_DLQ"), 1)
	info, err := admin.GetConsumerInfo(context.Background(), "ORDERS", "worker")
	require.NoError(t, err)
	assert.Equal(t, 1, info.NumAckPending)
}

// What is too large for a copy with a reason has an end all the same, and comes back byte for byte, also
// from a stream that deletes what ends.
func TestDeadLettersOfTheLargest(t *testing.T) {
	t.Parallel()
	const most = 96 << 10
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPayload = most }))
	client := connect(t, s, nil)
	ctx := context.Background()
	reason := strings.Repeat("why ", 300)
	for name, c := range map[string]struct {
		retention jetstream.RetentionPolicy
		header    int
		data      int
		reference bool
	}{
		"ROOM":     {data: most - 2000},
		"LITTLE":   {data: most - 700},
		"NONE":     {data: most - 100, reference: true},
		"HEADER":   {header: 65_300, reference: true},
		"QUEUE":    {data: most - 100, retention: jetstream.WorkQueuePolicy, reference: true},
		"INTEREST": {data: most - 100, retention: jetstream.InterestPolicy, reference: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: name, Subjects: []string{name}, Retention: c.retention})
			require.NoError(t, err)
			_, err = client.CreateConsumer(ctx, name, &jetstream.ConsumerConfig{Name: "worker", AckPolicy: jetstream.AckExplicitPolicy})
			require.NoError(t, err)
			original := &nats.Message{Subject: name, Data: bytes.Repeat([]byte("x"), c.data)}
			if c.header > 0 {
				original.Header = natsgo.Header{"X": {strings.Repeat("x", c.header)}}
			}
			ack, err := client.PublishMsgToStream(ctx, original)
			require.NoError(t, err)
			handled := make(chan *nats.Message, 2)
			var tries atomic.Int32
			_, err = client.Consume(ctx, name, "worker", func(msg *nats.Message) error {
				handled <- msg
				if tries.Add(1) == 1 {
					return nats.Permanent(errors.New(reason))
				}
				return nil
			})
			require.NoError(t, err)
			<-handled
			eventually(t, "the dead letter", func() bool { return len(deadLettersOf(t, client, name+"_DLQ")) == 1 })
			letter := deadLettersOf(t, client, name+"_DLQ")[0]
			assert.Equal(t, c.reference, letter.Reference)
			assert.Equal(t, ack.Sequence, letter.Sequence)
			assert.True(t, strings.HasPrefix(letter.Reason, "why"))
			if c.reference {
				assert.Empty(t, letter.Data)
			} else {
				assert.Equal(t, original.Data, letter.Data)
			}
			count, err := client.ReplayDeadLetters(ctx, name)
			require.NoError(t, err)
			assert.Equal(t, 1, count)
			select {
			case again := <-handled:
				assert.Equal(t, original.Data, again.Data)
				assert.Equal(t, original.Header["X"], again.Header["X"])
			case <-time.After(patience):
				t.Error("it did not come back")
			}
			if c.retention != jetstream.LimitsPolicy {
				eventually(t, "both are gone", func() bool {
					info, err := client.GetStreamInfo(ctx, name)
					return err == nil && info.State.Msgs == 0
				})
			}
			eventually(t, "no letter is left", func() bool { return len(deadLettersOf(t, client, name+"_DLQ")) == 0 })
		})
	}
}

// A consumer of headers only gives the handler no payload; the dead letter has it.
func TestDeadLetterOfAHeadersOnlyConsumer(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 0)
	original := &nats.Message{Subject: "orders.created", Header: natsgo.Header{"X": {"y"}, "Nats-Msg-Id": {"1"}}, Data: []byte("payload")}
	_, err := client.PublishMsgToStream(ctx, original)
	require.NoError(t, err)
	gone, err := client.PublishToStream(ctx, "orders.gone", []byte("x"))
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", HeadersOnly: true})
	stream, err := client.GetStream(ctx, "ORDERS")
	require.NoError(t, err)
	consumption := consume(t, client, func(msg *nats.Message) error {
		assert.Empty(t, msg.Data)
		if msg.Subject == "orders.gone" {
			assert.NoError(t, stream.DeleteMsg(ctx, gone.Sequence))
		}
		return nats.Permanent(errPoison)
	})
	eventually(t, "the dead letters", func() bool { return consumption.Stats().DeadLettered == 2 })
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 2)
	assert.Equal(t, original.Header, letters[0].Header)
	assert.Equal(t, original.Data, letters[0].Data)
	assert.False(t, letters[0].Reference)
	assert.True(t, letters[1].Reference, "what is gone is not taken for an empty message")
}

// A denial is asked for once, told, and holds up nobody.
func TestDeadLetterDenied(t *testing.T) {
	t.Parallel()
	for name, denied := range map[string][]string{
		"to publish":         {"dlq.>"},
		"to make the stream": {"$JS.API.STREAM.CREATE.>"},
		"to look":            {"$JS.API.STREAM.INFO.>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: denied}})
			admin := connect(t, s, as("admin"))
			newStream(t, admin, 20)
			newConsumer(t, admin, jetstream.ConsumerConfig{Name: "worker"})
			if name == "to publish" {
				_, err := admin.CreateStream(context.Background(), &jetstream.StreamConfig{Name: "ORDERS_DLQ", Subjects: []string{"dlq.ORDERS.*"}})
				require.NoError(t, err)
			}
			var events eventLog
			client := connect(t, s, as("u"), nats.WithEventHandler(events.handle))
			begin := time.Now()
			consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) })
			eventually(t, "all wait", func() bool { return consumption.Stats().Waiting == 20 })
			assert.Less(t, since(begin), 5*time.Second, "one silence is longer")
			eventually(t, "it is told", func() bool { return len(events.of(nats.EventAsyncError)) > 0 })
			told := events.of(nats.EventAsyncError)
			require.Len(t, told, 1, "once")
			require.ErrorIs(t, told[0].Err, nats.ErrPermission)
			require.ErrorContains(t, told[0].Err, strings.TrimSuffix(denied[0], ">"))
			assert.Equal(t, "worker", told[0].Consumer)
		})
	}
}

// To publish is enough, wherever the stream of the dead letters is.
func TestDeadLettersWithoutTheRightToLook(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.>"}}})
	admin, client := connect(t, s, as("admin")), connect(t, s, as("u"))
	ctx := context.Background()
	_, err := admin.CreateStream(ctx, &jetstream.StreamConfig{Name: "GRAVES", Subjects: []string{"graves.>"}})
	require.NoError(t, err)
	newStream(t, admin, 3)
	poison := func(*nats.Message) error { return nats.Permanent(errPoison) }
	newConsumer(t, admin, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, poison, nats.WithDeadLetter("graves.orders"))
	eventually(t, "the dead letters", func() bool { return consumption.Stats().DeadLettered == 3 })
	assert.Len(t, deadLettersOf(t, admin, "GRAVES"), 3)
	require.NoError(t, consumption.Stop(within(t, patience)))

	_, err = admin.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	consumption = consume(t, client, poison, nats.WithDeadLetter("orders.dead"))
	eventually(t, "the refusal", func() bool { return consumption.Stats().Waiting == 1 })
	info, err := admin.GetStreamInfo(ctx, "ORDERS")
	require.NoError(t, err)
	assert.EqualValues(t, 4, info.State.Msgs, "not into its own stream")
}

// An account may demand a limit of every stream.
func TestDeadLettersOfAnAccountThatDemandsMaxBytes(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	global, err := s.Embedded().LookupAccount("$G")
	require.NoError(t, err)
	require.NoError(t, global.UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{
		"": {MaxMemory: -1, MaxStore: 1 << 30, MaxStreams: -1, MaxConsumers: -1, MaxBytesRequired: true},
	}))
	client := connect(t, s, nil)
	ctx := context.Background()
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxBytes: 1 << 20})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) })
	eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
	info, err := client.GetStreamInfo(ctx, "ORDERS_DLQ")
	require.NoError(t, err)
	assert.EqualValues(t, 1<<20, info.Config.MaxBytes)
	assert.Equal(t, jetstream.DiscardNew, info.Config.Discard, "no dead letter is dropped for another")
}

// Two domains may have a stream of one name: what waits and what is dead stays in its own, whether the
// client names the domain or its server is in it.
func TestDomainsKeepTheirCopies(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprint("named ", named), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			var left atomic.Int32
			at := make(map[string]*nats.Client)
			for domain, s := range leafPair(t, nil) {
				client := connect(t, s, func(c *nats.Config) {
					if named {
						c.JetStreamDomain = domain
					}
				})
				at[domain] = client
				_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{domain + ".>"}})
				require.NoError(t, err)
				// Of another name each: the servers' acknowledgements have no domain, so that one of a consumer
				// would also be one of its namesake on the other side.
				worker := "worker_" + domain
				newConsumer(t, client, jetstream.ConsumerConfig{Name: worker, MaxAckPending: 3})
				left.Add(4)
				var mu sync.Mutex
				tries := make(map[string]int)
				_, err = client.Consume(ctx, "ORDERS", worker, func(msg *nats.Message) error {
					if !assert.True(t, strings.HasPrefix(msg.Subject, domain), "%s handles %s", domain, msg.Subject) {
						return nil
					}
					mu.Lock()
					defer mu.Unlock()
					tries[msg.Subject]++
					switch first := tries[msg.Subject] == 1; {
					case strings.HasSuffix(msg.Subject, ".poison"):
						return nats.Permanent(errPoison)
					case first:
						return nats.RetryAfter(errPoison, 500*time.Millisecond) // of all but one in the retry stream
					}
					left.Add(-1)
					return nil
				}, nats.WithRetryStream())
				require.NoError(t, err)
			}
			for _, what := range []string{".poison", ".a", ".b", ".c", ".d", ".last.poison"} {
				for domain, client := range at {
					_, err := client.PublishToStream(ctx, domain+what, nil)
					require.NoError(t, err)
				}
			}
			eventually(t, "all are handled", func() bool { return left.Load() == 0 })
			for domain, client := range at {
				eventually(t, "the dead letters", func() bool { return len(deadLettersOf(t, client, "ORDERS_DLQ")) == 2 })
				for _, letter := range deadLettersOf(t, client, "ORDERS_DLQ") {
					assert.True(t, strings.HasPrefix(letter.Subject, domain), "%s keeps %s", domain, letter.Subject)
				}
				info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
				require.NoError(t, err)
				assert.Equal(t, []string{"retry." + domain + ".ORDERS.*"}, info.Config.Subjects)
			}
		})
	}
}

// With the server's second form of acknowledgements, namesakes in two domains do not take those of each other.
func TestAcksOfTwoDomains(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pulled := make(map[string]*nats.Message)
	at := make(map[string]*nats.Client)
	for domain, s := range leafPair(t, map[string]bool{"js_ack_fc_v2": true}) {
		client := connect(t, s, func(c *nats.Config) { c.JetStreamDomain = domain })
		_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{domain + ".>"}})
		require.NoError(t, err)
		newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
		_, err = client.PublishToStream(ctx, domain+".created", nil)
		require.NoError(t, err)
		messages, err := client.PullMessages(ctx, "ORDERS", "worker", 1)
		require.NoError(t, err)
		require.Len(t, messages, 1)
		at[domain], pulled[domain] = client, messages[0]
	}
	require.NoError(t, at["hub"].AckMessage(ctx, pulled["hub"]))
	for domain, pending := range map[string]int{"hub": 0, "leaf": 1} {
		info, err := at[domain].GetConsumerInfo(ctx, "ORDERS", "worker")
		require.NoError(t, err)
		assert.Equal(t, pending, info.NumAckPending, domain)
	}
	require.NoError(t, at["leaf"].AckMessage(ctx, pulled["leaf"]))
}
