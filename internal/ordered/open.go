package ordered

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How consumers are asked for.
const (
	hurry      = time.Second           // between two, at most, where the way is not longer
	fewFilters = 100                   // with more it is not hurried: the server compares each with each
	compares   = 500 * time.Nanosecond // of two
	pauseMin   = 10 * time.Millisecond
	pauseMax   = 500 * time.Millisecond
	denied     = 5 * time.Second // more, after the server has denied a question
	maxNames   = 32              // that are remembered; older ones the server has dropped
)

// open goes on making a consumer that starts after the last message, until there is news: the consumer, or that
// none is made yet. It returns an error when ctx ends, when the stream is known to be gone, and when the server
// refuses the first consumer.
func (r *Reader) open(ctx context.Context) (Opening, error) {
	if r.creation == nil && r.failures > 0 { // counted from the last attempt, which may have waited long already
		pause.Sleep(ctx, min(pauseMin<<min(r.failures, 10), pauseMax)-time.Since(r.tried))
	}
	if err := r.conn.Wait(ctx); err != nil {
		return Opening{}, r.api.Unanswered(ctx, err, nil)
	}
	if err := fault.Ended(ctx); err != nil {
		return Opening{}, err
	}
	made, breaks, err := r.create(ctx)
	if err == nil {
		var opening Opening
		if opening, err = r.begin(ctx, made, breaks); err == nil {
			return opening, nil
		}
	}
	r.tried = time.Now()
	switch {
	case ctx.Err() != nil:
		return Opening{}, r.api.Unanswered(ctx, fault.ErrTimeout, err)
	case errors.Is(err, conn.ErrBroken):
		return Opening{}, nil
	}
	r.failures++
	if errors.Is(err, conn.ErrUnanswered) {
		return Opening{}, nil
	}
	if len(r.names) == 1 && made == nil && !fault.Classify(err, nil).IsUncertain() {
		r.names = nil // refused
	}
	r.giveUp()
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == fault.CodeInactiveTooLong && r.inactive > 0 {
		r.inactive = 0 // which is what the stream allows
		return Opening{}, nil
	}
	if absent := r.api.Absent(err, r.created); absent != nil {
		err = absent
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), !r.began && !jsapi.Passes(err):
	case errors.Is(err, natsgo.ErrPermissionViolation):
		return Opening{}, r.deny(err)
	default:
		return Opening{}, nil
	}
	return Opening{}, err
}

// deny puts the next attempt off for long.
func (r *Reader) deny(err error) error {
	r.putOff(denied)
	return err
}

// putOff gives the consumer up, and has the next one wait: the longer, the more in a row have brought nothing.
func (r *Reader) putOff(d time.Duration) {
	r.Renew()
	r.failures++
	r.tried = time.Now().Add(d)
}

// create goes on asking for a consumer until the server answers, or as long as one should wait.
func (r *Reader) create(ctx context.Context) (made *jetstream.ConsumerInfo, breaks uint64, err error) {
	if r.creation == nil {
		if r.created.IsZero() {
			r.created = time.Now()
		}
		r.creation = r.conn.Ask(r.question())
		r.creation.Renew = r.question
		if n := len(r.o.Config.FilterSubjects); n < fewFilters {
			r.creation.Hurry = hurry
		} else {
			r.creation.Patient(time.Duration(n*n) * compares)
		}
	}
	_, breaks, _ = r.conn.State()
	m, err := r.creation.Next(ctx)
	if err != nil {
		return nil, 0, err
	}
	if wire.NoResponders(m) {
		return nil, 0, natsgo.ErrNoResponders
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		jetstream.ConsumerInfo
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, 0, err
	}
	if answer.Error != nil {
		return nil, 0, answer.Error
	}
	r.creation.End(true)
	r.creation = nil
	r.names = slices.DeleteFunc(r.names, func(name string) bool { return name == answer.Name })
	r.giveUp() // the others
	return &answer.ConsumerInfo, breaks, nil
}

// begin reads a consumer.
func (r *Reader) begin(ctx context.Context, made *jetstream.ConsumerInfo, breaks uint64) (Opening, error) {
	if most := made.Config.MaxRequestBatch; most > 0 { // the server's own limit, above which it refuses a pull
		r.o.Batch = min(r.o.Batch, most)
	}
	// The messages that were asked for and the statuses of all pulls, should nobody read for long.
	r.received = make(chan *natsgo.Msg, r.o.Batch+4*int(r.expires/r.o.Heartbeat))
	sub, unwatch, err := r.conn.SubscribeInbox(ctx, "", nil, r.received, r.onDenial, r.subject("MSG.NEXT", made.Name))
	if err != nil {
		r.discard(made.Name)
		return Opening{}, err
	}
	r.name, r.sub, r.unwatch, r.breaks = made.Name, sub, unwatch, breaks
	r.delivered, r.asked, r.answers, r.beat = 0, wire.Pulls{}, 0, r.o.Heartbeat
	r.pending, r.unsteady = made.NumPending, false
	if r.o.Lasting {
		r.watch(made.Cluster)
	}
	r.refill()
	opening := Opening{Pending: made.NumPending, Breaks: breaks}
	if !r.began {
		r.began, r.born = true, made.Created
		if r.o.Config.DeliverPolicy == jetstream.DeliverNewPolicy { // the next consumer goes on from here
			r.o.Config.DeliverPolicy, r.last = jetstream.DeliverAllPolicy, made.Delivered.Stream
		}
	} else if r.o.Opened != nil {
		if opening.Anew, err = r.isAnew(ctx); err != nil {
			r.Renew()
			return Opening{}, err
		}
	}
	if made.NumPending == 0 {
		r.mark(true)
	}
	return opening, nil
}

// watch takes part in the watch over the server that leads the consumer. The death of the connected one is the
// connection's; then that matters only to who wants to know for how long it is silent.
func (r *Reader) watch(cluster *jetstream.ClusterInfo) {
	info, leader := r.conn.Info(), ""
	home := info.Cluster == ""
	if cluster != nil {
		leader, home = cluster.Leader, cluster.Leader == info.Name
	}
	r.calmBeat = calmBeat
	if home && info.JetStream && r.api.Subject("") == jetstream.DefaultAPIPrefix {
		r.calmBeat = homeBeat
	}
	if r.calmBeat < homeBeat || r.o.Observe != nil {
		r.api.Nodes().Join(r.part, leader)
	}
}

// giveUp ends the creation of a consumer, and deletes what may have been made of it.
func (r *Reader) giveUp() {
	if r.creation != nil {
		r.creation.End(false)
		r.creation = nil
	}
	r.discard(r.names...)
	r.names = nil
}

// question asks for a consumer of another name.
func (r *Reader) question() *natsgo.Msg {
	cfg := r.o.Config
	cfg.Name = rand.Text()
	cfg.AckPolicy = jetstream.AckNonePolicy
	cfg.MemoryStorage = true
	cfg.Replicas = 1
	cfg.InactiveThreshold = r.inactive
	if r.last > 0 && !r.whole {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, r.last+1, nil
	}
	if len(r.names) == maxNames {
		r.names = r.names[1:]
	}
	r.names = append(r.names, cfg.Name)
	subject := r.subject("CREATE", cfg.Name)
	if cfg.FilterSubject != "" && len(cfg.FilterSubjects) == 0 {
		subject += "." + cfg.FilterSubject
	}
	body, _ := json.Marshal(struct { // of numbers, texts and times
		Stream string                   `json:"stream_name"`
		Config jetstream.ConsumerConfig `json:"config"`
	}{r.o.Stream, cfg})
	return &natsgo.Msg{Subject: subject, Data: body}
}

// isAnew asks whether the stream of the consumer is another one than was read before. One that was deleted and
// made again counts from 1, and one that lost its last messages counts some numbers twice. Where replicas are
// read it does not wait for the stream's leader, since they may have what was stored last.
func (r *Reader) isAnew(ctx context.Context) (bool, error) {
	if r.o.Replicas {
		_, trip := r.conn.Peer()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(pauseMax, 3*trip))
		defer cancel()
	}
	info, err := r.api.StreamInfo(ctx, r.o.Stream)
	switch {
	case errors.Is(err, natsgo.ErrPermissionViolation): // then nobody can say
		return false, nil
	case err != nil:
		return false, err
	}
	was := r.stream
	r.stream = info.Created
	if was.IsZero() { // it was there before the first consumer
		return info.Created.After(r.born) || info.State.LastSeq < r.last, nil
	}
	return !info.Created.Equal(was) || info.State.LastSeq < r.last, nil
}
