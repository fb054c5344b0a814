package nats_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// fillSubjects makes the stream ORDERS with messages 1 to n on orders.0, orders.1 and orders.2 by turns.
func fillSubjects(t testing.TB, client *nats.Client, n int) {
	t.Helper()
	newStream(t, client, 0)
	publishSubjects(t, client, 1, n)
}

func publishSubjects(t testing.TB, client *nats.Client, from, to int) {
	t.Helper()
	var batch []*nats.Message
	for i := from; i <= to; i++ {
		batch = append(batch, &nats.Message{Subject: fmt.Sprintf("orders.%d", i%3), Data: fmt.Append(nil, i)})
	}
	_, err := client.PublishBatch(context.Background(), batch)
	require.NoError(t, err)
}

// read returns the sequences that a reading yields, and its error.
func read(t testing.TB, client *nats.Client, opts ...nats.ReadOption) ([]int, error) {
	t.Helper()
	var sequences []int
	for msg, err := range client.ReadStream(within(t, patience), "ORDERS", opts...) {
		if err != nil {
			require.Nil(t, msg)
			return sequences, err
		}
		sequences = append(sequences, sequenceOf(t, msg))
	}
	return sequences, nil
}

func sequenceOf(t testing.TB, msg *nats.Message) int {
	t.Helper()
	meta, err := msg.Metadata()
	if !assert.NoError(t, err) {
		return 0
	}
	assert.Equal(t, fmt.Sprint(meta.Sequence.Stream), string(msg.Data))
	return int(meta.Sequence.Stream)
}

func upTo(from, to, step int) []int {
	var numbers []int
	for i := from; i <= to; i += step {
		numbers = append(numbers, i)
	}
	return numbers
}

func TestReadStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	fillSubjects(t, client, 1000)
	time.Sleep(2 * time.Millisecond)
	since := time.Now()
	publishSubjects(t, client, 1001, 1100)
	for name, test := range map[string]struct {
		opts []nats.ReadOption
		want []int
	}{
		"all":              {nil, upTo(1, 1100, 1)},
		"filter":           {[]nats.ReadOption{nats.WithReadFilter("orders.1")}, upTo(1, 1100, 3)},
		"filters":          {[]nats.ReadOption{nats.WithReadFilter("orders.1", "orders.2", "orders.0")}, upTo(1, 1100, 1)},
		"from":             {[]nats.ReadOption{nats.WithReadFrom(990)}, upTo(990, 1100, 1)},
		"from 0":           {[]nats.ReadOption{nats.WithReadFrom(0)}, upTo(1, 1100, 1)},
		"from the last":    {[]nats.ReadOption{nats.WithReadFrom(1100)}, []int{1100}},
		"from beyond":      {[]nats.ReadOption{nats.WithReadFrom(1101)}, nil},
		"since":            {[]nats.ReadOption{nats.WithReadSince(since)}, upTo(1001, 1100, 1)},
		"since now":        {[]nats.ReadOption{nats.WithReadSince(time.Now().Add(time.Hour))}, nil},
		"since, filter":    {[]nats.ReadOption{nats.WithReadSince(since), nats.WithReadFilter("orders.2")}, upTo(1001, 1100, 3)},
		"last":             {[]nats.ReadOption{nats.WithReadLast()}, []int{1098, 1099, 1100}},
		"last, filter":     {[]nats.ReadOption{nats.WithReadLast(), nats.WithReadFilter("orders.1")}, []int{1099}},
		"last option":      {[]nats.ReadOption{nats.WithReadLast(), nats.WithReadFrom(5), nats.WithReadFrom(1099), nil}, []int{1099, 1100}},
		"nothing to match": {[]nats.ReadOption{nats.WithReadFilter("orders.none")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, client, test.opts...)
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
	eventually(t, "no consumer is left", func() bool {
		info, err := client.GetStreamInfo(context.Background(), "ORDERS")
		return err == nil && info.State.Consumers == 0
	})
}

func TestReadStreamRefuses(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	_, err := read(t, client)
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	fillSubjects(t, client, 3)
	_, err = read(t, client, nats.WithReadFilter("a..b"))
	require.ErrorIs(t, err, nats.ErrInvalidSubject)
	_, err = read(t, client, nats.WithReadFilter("orders.>", "orders.1"))
	require.ErrorContains(t, err, "overlap")
	for name, ctx := range map[string]context.Context{"ORD.ERS": context.Background(), "ORDERS": nil} {
		for _, err := range client.ReadStream(ctx, name) {
			require.ErrorIs(t, err, nats.ErrInvalidArgument)
		}
	}
	// A reading that does not reach the end says so.
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var count int
	for _, err = range client.ReadStream(ctx, "ORDERS") {
		if count++; count == 2 {
			cancel(cause)
		}
	}
	require.ErrorIs(t, err, cause)
	assert.Equal(t, 3, count)
	require.NoError(t, client.Close())
	_, err = read(t, client)
	require.ErrorIs(t, err, nats.ErrClosed)
}

// Raw nats.go's ordered consumer: silent for 10 s and more after an outage.
func TestReadStreamFollowsOverOutages(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, publisher := connect(t, s, nil), connect(t, s, nil)
	fillSubjects(t, publisher, 300)
	got := make(chan int, 10_000)
	ended := make(chan error, 1)
	go func() {
		for msg, err := range client.ReadStream(context.Background(), "ORDERS", nats.WithReadFollow()) {
			if err != nil {
				ended <- err
				return
			}
			got <- sequenceOf(t, msg)
		}
	}()
	want := 0
	expect := func(to int) {
		t.Helper()
		for want < to {
			want++
			select {
			case seq := <-got:
				require.Equal(t, want, seq)
			case <-time.After(patience):
				t.Fatalf("%d did not come", want)
			}
		}
	}
	expect(300)
	for i := range 2 {
		s.Stop()
		s.Restart()
		require.NoError(t, publisher.Ping(within(t, patience)))
		publishSubjects(t, publisher, 301+i*10, 310+i*10)
		expect(310 + i*10)
	}
	// The purge of what was read changes nothing.
	require.NoError(t, publisher.PurgeStream(context.Background(), "ORDERS"))
	publishSubjects(t, publisher, 321, 330)
	expect(330)
	require.NoError(t, publisher.DeleteStream(context.Background(), "ORDERS"))
	require.ErrorIs(t, <-ended, nats.ErrStreamNotFound)
}

// A reading is whole although the connection breaks in its midst, more than once.
func TestReadStreamIsWholeOverBrokenConnections(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	publisher := connect(t, s, nil)
	client, proxy := through(t, s)
	const n = 3000
	fillSubjects(t, publisher, n)
	var got []int
	for msg, err := range client.ReadStream(within(t, 3*patience), "ORDERS") {
		require.NoError(t, err)
		if got = append(got, sequenceOf(t, msg)); len(got)%700 == 0 {
			proxy.Cut()
			proxy.Restore()
		}
	}
	assert.Equal(t, upTo(1, n, 1), got)
}

// The last of each subject stays that when the connection breaks meanwhile: what lies between those
// messages is not read.
func TestReadLastOverBrokenConnections(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	publisher := connect(t, s, nil)
	client, proxy := through(t, s)
	newStream(t, publisher, 0)
	const subjects = 600
	var batch []*nats.Message
	for i := range subjects - 1 {
		batch = append(batch, &nats.Message{Subject: fmt.Sprintf("orders.%d", i)}, &nats.Message{Subject: "orders.often"})
	}
	_, err := publisher.PublishBatch(context.Background(), batch)
	require.NoError(t, err)
	for name, follow := range map[string]bool{"to the end": false, "following": true} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]int{}
			opts := []nats.ReadOption{nats.WithReadLast()}
			if follow {
				opts = append(opts, nats.WithReadFollow())
			}
			total := 0
			for msg, err := range client.ReadStream(within(t, 3*patience), "ORDERS", opts...) {
				require.NoError(t, err)
				seen[msg.Subject]++
				if total++; total%100 == 1 {
					proxy.Cut()
					proxy.Restore()
				}
				if follow && total == subjects {
					break
				}
			}
			assert.Equal(t, subjects, len(seen)) //nolint:testifylint // the subjects themselves would fill pages
			assert.Equal(t, subjects, total)
		})
	}
}

// The end is where it was when the reading began, also when more comes all the time.
func TestReadStreamEndsWhileMoreComes(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	fillSubjects(t, client, 500)
	got := 0
	for msg, err := range client.ReadStream(within(t, patience), "ORDERS") {
		require.NoError(t, err)
		got++
		assert.Equal(t, got, sequenceOf(t, msg))
		publishSubjects(t, client, 500+got, 500+got)
	}
	assert.Equal(t, 500, got)
}

// Messages that are gone before they were read are not waited for, near and far.
func TestReadStreamEndsAfterAPurge(t *testing.T) {
	t.Parallel()
	for _, way := range []time.Duration{0, 600 * time.Millisecond} {
		s := natstest.RunServer(t)
		near := connect(t, s, nil)
		fillSubjects(t, near, 1000)
		proxy := natstest.NewProxy(t, s.URL())
		proxy.Delay(way)
		client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
		var got int
		for _, err := range client.ReadStream(within(t, 6*patience), "ORDERS") {
			require.NoError(t, err)
			if got++; got == 1 {
				require.NoError(t, near.PurgeStream(context.Background(), "ORDERS"))
			}
		}
		assert.Less(t, got, 1000)
	}
}

// A loop that is left leaves no consumer behind, and one whose client is closed ends.
func TestReadStreamLeftEarly(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	fillSubjects(t, client, 1000)
	for msg, err := range client.ReadStream(context.Background(), "ORDERS") {
		require.NoError(t, err)
		assert.Equal(t, 1, sequenceOf(t, msg))
		break
	}
	eventually(t, "no consumer is left", func() bool {
		info, err := other.GetStreamInfo(context.Background(), "ORDERS")
		return err == nil && info.State.Consumers == 0
	})
	ended := make(chan error, 1)
	reading := make(chan struct{})
	go func() {
		for msg, err := range client.ReadStream(context.Background(), "ORDERS", nats.WithReadFrom(1000), nats.WithReadFollow()) {
			if msg != nil {
				close(reading)
			}
			if err != nil {
				ended <- err
			}
		}
	}()
	<-reading
	require.NoError(t, client.Close())
	require.ErrorIs(t, <-ended, nats.ErrClosed)
}

// A stream that was made anew meanwhile is not read on as if it were the one before.
func TestReadStreamOfAnotherStream(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	publisher := connect(t, s, nil)
	client, proxy := through(t, s)
	fillSubjects(t, publisher, 3)
	ctx, read := within(t, 3*patience), 0
	for msg, err := range client.ReadStream(ctx, "ORDERS", nats.WithReadFollow()) {
		if err != nil {
			require.ErrorIs(t, err, nats.ErrStreamNotFound)
			require.ErrorContains(t, err, "made anew")
			break
		}
		require.Equal(t, read+1, sequenceOf(t, msg))
		if read++; read == 3 {
			proxy.Cut()
			require.NoError(t, publisher.DeleteStream(ctx, "ORDERS"))
			fillSubjects(t, publisher, 5)
			proxy.Restore()
		}
	}
	require.Equal(t, 3, read)
}

// Over a long way, no pass leaves a consumer behind, and each takes about what raw nats.go takes.
func TestPassesOverALongWay(t *testing.T) {
	t.Parallel()
	passesOverADistance(t, 600*time.Millisecond)
}

func TestPassesOverAVeryLongWay(t *testing.T) {
	t.Parallel()
	passesOverADistance(t, 2400*time.Millisecond)
}

func passesOverADistance(t *testing.T, trip time.Duration) {
	t.Helper()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	ctx := within(t, 5*patience)
	fillSubjects(t, near, 500)
	kv, err := near.CreateKeyValue(ctx, "conf")
	require.NoError(t, err)
	put(t, kv, "k", "v")
	store, err := near.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	_, err = store.PutBytes(ctx, "f", make([]byte, 300<<10))
	require.NoError(t, err)
	proxy := natstest.NewProxy(t, s.URL())
	proxy.Delay(trip / 2)
	far := connect(t, s, func(c *nats.Config) {
		c.URLs, c.Timeout, c.DialTimeout = []string{proxy.URL()}, 30*time.Second, 30*time.Second
	})
	kv, err = far.GetKeyValue(ctx, "conf")
	require.NoError(t, err)
	store, err = far.GetObjectStore(ctx, "files")
	require.NoError(t, err)
	for name, pass := range map[string]struct {
		trips float64
		run   func() (int, error)
	}{
		"ReadStream": {3, func() (n int, err error) {
			for _, err := range far.ReadStream(ctx, "ORDERS") {
				if err != nil {
					return n, err
				}
				n++
			}
			return n - 499, nil
		}},
		"All": {2, func() (n int, err error) {
			for _, err := range kv.All(ctx) {
				if err != nil {
					return n, err
				}
				n++
			}
			return n, nil
		}},
		"Keys": {2, func() (n int, err error) {
			for _, err := range kv.Keys(ctx) {
				if err != nil {
					return n, err
				}
				n++
			}
			return n, nil
		}},
		"GetBytes": {3, func() (int, error) {
			data, err := store.GetBytes(ctx, "f")
			return len(data) / (300 << 10), err
		}},
	} {
		begun := time.Now()
		n, err := pass.run()
		require.NoError(t, err, name)
		assert.Equal(t, 1, n, name)
		assert.Less(t, since(begun).Seconds(), pass.trips*trip.Seconds()*1.5+1, name)
	}
	for _, stream := range []string{"ORDERS", "KV_conf", "OBJ_files"} {
		eventually(t, "no consumer is left", func() bool { return consumers(t, near, stream) == 0 })
	}
}
