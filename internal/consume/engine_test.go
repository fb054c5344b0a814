package consume_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

// told records what an engine reports.
type told struct{ conntest.Words }

func (r *told) Available(_, consumer string)               { r.Say(consumer, "available") }
func (r *told) Unavailable(_, consumer string, _ error)    { r.Say(consumer, "unavailable") }
func (r *told) Crowded(_, consumer string, _ error)        { r.Say(consumer, "crowded") }
func (r *told) Left(_, consumer string, _ uint64, _ error) { r.Say(consumer, "left") }
func (r *told) Failed(d *consume.Delivery, _ error)        { r.Say(string(d.Msg.Data), "failed") }
func (r *told) Died(d *consume.Delivery, err error) {
	r.Say(string(d.Msg.Data), "died of", err.Error())
}
func (r *told) Undead(d *consume.Delivery, _ error)      { r.Say(string(d.Msg.Data), "undead") }
func (r *told) Unconfirmed(d *consume.Delivery, _ error) { r.Say(string(d.Msg.Data), "unconfirmed") }
func (r *told) Receive(*natsgo.Msg) *consume.Delivery {
	return &consume.Delivery{Token: new(wire.Token)}
}
func (r *told) Key(d *consume.Delivery) (key string, _ error) { return string(d.Msg.Data), nil }

func (r *told) Handle(d *consume.Delivery) error {
	r.Say(string(d.Msg.Data), "handled")
	if string(d.Msg.Data) == "bad" {
		return &consume.RetryError{Cause: errors.New("it is bad"), After: -1}
	}
	return nil
}

func (r *told) Settled(d *consume.Delivery, op string, _ time.Duration, _ error) {
	r.Say(string(d.Msg.Data), op)
}

// newEngine returns an engine with a stream S of two messages, and what it reports.
func newEngine(t *testing.T) (*consume.Engine, jetstream.JetStream, *told) {
	t.Helper()
	s := natstest.RunServer(t)
	api, err := jsapi.New(conntest.Open(t, s.URL(), nil), jsapi.Options{Timeout: patience})
	require.NoError(t, err)
	ctx := context.Background()
	_, err = api.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	for _, text := range []string{"good", "bad"} {
		_, err = api.JetStream().Publish(ctx, "s", []byte(text))
		require.NoError(t, err)
	}
	life, r := lifecycle.New(), &told{}
	t.Cleanup(life.End)
	p := publish.New(life.Context(), api, patience)
	return consume.New(api, p, life, patience, slog.New(slog.DiscardHandler), r), api.JetStream(), r
}

// A good message and a bad one, through every door.
func TestEngine(t *testing.T) {
	t.Parallel()
	e, js, r := newEngine(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o := consume.Options{Stream: "S", Consumer: "C", Workers: 1, Keyed: true, BackOff: []time.Duration{time.Second}}
	host := func(*consume.Consumption) consume.Host { return r }
	_, err := e.Start(ctx, ctx, o, host)
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound)
	o.Own = &jetstream.ConsumerConfig{Name: "C", Durable: "C", AckPolicy: jetstream.AckExplicitPolicy}
	s, err := e.Start(ctx, ctx, o, host)
	require.NoError(t, err)
	assert.Equal(t, []*consume.Consumption{s}, e.All())
	said := func(words string) func() bool { // what is counted is reported a moment later
		return func() bool { return strings.Contains(strings.Join(r.Said(), "; "), words) }
	}
	require.Eventually(t, said("bad died"), patience, 10*time.Millisecond)
	assert.EqualValues(t, 1, s.Stats().DeadLettered)
	assert.Equal(t, "good handled; good ack; bad handled; bad failed; bad term; bad died of it is bad", strings.Join(r.Said(), "; "))
	require.Eventually(t, func() bool {
		lag, err := s.Lag(ctx)
		require.NoError(t, err)
		return lag == 0
	}, patience, 10*time.Millisecond)
	assert.True(t, s.Healthy())
	require.NoError(t, s.Crowded())

	replayed, err := e.Replay(ctx, "replay", consume.Replay{Stream: "S"})
	require.NoError(t, err)
	assert.Equal(t, 1, replayed)
	require.Eventually(t, func() bool { return s.Stats().Handled == 3 }, patience, 10*time.Millisecond)
	require.NoError(t, js.DeleteStream(ctx, "S"))
	require.Eventually(t, func() bool { return !s.Healthy() }, patience, 10*time.Millisecond)
	require.Eventually(t, said("C unavailable"), patience, 10*time.Millisecond)

	s.BeginStop(fault.ErrStopped)
	assert.Zero(t, s.AwaitStop(ctx))
	<-s.Done()
	require.ErrorIs(t, s.Err(), fault.ErrStopped)
	assert.Empty(t, e.All())
	assert.Zero(t, <-e.Close(ctx))
}

// slowKeys has one key for all messages, and is slow to tell it of the first.
type slowKeys struct {
	*told
	calls atomic.Int64
	goOn  chan struct{}
}

func (h *slowKeys) Key(*consume.Delivery) (string, error) {
	if h.calls.Add(1) == 1 {
		<-h.goOn
	}
	return "", nil
}

// What comes by a new inbox while the old one is not read yet is handled after what is there.
func TestInboxesCross(t *testing.T) {
	t.Parallel()
	e, js, r := newEngine(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := &slowKeys{told: r, goOn: make(chan struct{})}
	o := consume.Options{
		Stream: "S", Consumer: "C", Workers: 4, Keyed: true,
		Own: &jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverNewPolicy},
	}
	s, err := e.Start(ctx, ctx, o, func(*consume.Consumption) consume.Host { return h })
	require.NoError(t, err)
	var want []string
	require.Eventually(t, func() bool { // the inbox that is not read is held to be silent
		text := strconv.Itoa(len(want))
		_, err := js.Publish(ctx, "s", []byte(text))
		require.NoError(t, err)
		want = append(want, text+" handled")
		return h.calls.Load() > 3
	}, patience, 20*time.Millisecond)
	close(h.goOn)
	require.Eventually(t, func() bool { return s.Stats().Handled == uint64(len(want)) }, patience, 10*time.Millisecond)
	handled := slices.DeleteFunc(r.Said(), func(words string) bool { return !strings.HasSuffix(words, " handled") })
	assert.Equal(t, want, handled)
	s.BeginStop(fault.ErrStopped)
	<-s.Done()
}

// An acknowledgement is denied by its subject.
func TestDeny(t *testing.T) {
	t.Parallel()
	var e consume.Engine
	assert.True(t, e.Deny("$JS.ACK.S.C.1.2.3.4.5"))
	assert.False(t, e.Deny("s"))
}
