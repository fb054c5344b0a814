package consume

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// find makes sure that the consumer exists, creating it when it is the Consumption's own, and learns
// its rules.
func (p *puller) find(ctx context.Context) error {
	if p.side {
		return p.s.findParked(ctx)
	}
	declare := p.info
	if p.own != nil {
		declare = p.declare
	}
	first := make(chan *jetstream.StreamInfo, 1)
	if p.born.IsZero() && p.own == nil { // declare has it
		go func() {
			info, _ := p.s.api.StreamInfo(ctx, p.stream) // it is for a precaution
			first <- info
		}()
	} else {
		first <- nil
	}
	info, err := declare(ctx)
	if err != nil {
		return err
	}
	rules, err := rulesOf(info)
	if err != nil {
		return err
	}
	if err := p.s.checkFilters(ctx, <-first, &info.Config); err != nil {
		return err
	}
	p.s.noteCrowd(info)
	anew := p.isAnew(ctx, info)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.born = info.Created; anew {
		p.s.disown()
	}
	if n := rules.MaxDeliver; n > 0 && n != p.s.rules.MaxDeliver {
		p.s.e.said.Push(func() {
			p.s.log.Warn("the consumer has a MaxDeliver: a message whose last delivery nobody answers is lost in its stream",
				"max_deliver", n)
		})
	}
	p.s.setRules(rules)
	p.floor = max(p.floor, info.AckFloor.Stream)
	p.crowded = rules.MaxWaiting > 0 && info.NumWaiting >= rules.MaxWaiting
	p.watch(info.Cluster)
	return nil
}

// watch takes where the consumer is. The caller holds s.mu.
func (p *puller) watch(cluster *jetstream.ClusterInfo) {
	p.leader = ""
	if cluster != nil && len(cluster.Replicas) == 0 {
		p.leader = cluster.Leader
	}
}

// isAnew tells whether the consumer has another stream than before, of the same name.
func (p *puller) isAnew(ctx context.Context, info *jetstream.ConsumerInfo) bool {
	if p.born.IsZero() || info.Created.Equal(p.born) {
		return false
	}
	stream, err := p.s.api.StreamInfo(ctx, p.stream)
	return err == nil && stream.Created.After(p.born)
}

// disown takes what is held for messages of a stream that is gone: to acknowledge them would end those of the
// new stream that have their sequences. The caller holds s.mu.
func (s *Consumption) disown() {
	held := 0
	s.held.highest = 0
	s.held.all(func(d *Delivery) {
		if d.from.side || !d.Token.Take() {
			return
		}
		if held++; d.state != stateRunning && s.held.remove(d) {
			s.changed.Signal()
		}
	})
	if held > 0 {
		s.e.said.Push(func() {
			s.log.Warn("the stream was made anew; the messages of the old one that are here are not acknowledged",
				"messages", held)
		})
	}
}

// declare makes the own consumer unless it exists. In the stream that it was in before it begins after
// what is known to be done.
func (p *puller) declare(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	info, err := p.s.api.StreamInfo(ctx, p.stream)
	if err != nil {
		return nil, jsapi.Wrap("get stream", p.stream, err)
	}
	cfg := *p.own
	first := p.born.IsZero()
	if first {
		if err := p.s.checkFilters(ctx, info, &cfg); err != nil {
			return nil, err
		}
	}
	p.s.mu.Lock()
	known := !first && info.Created.Equal(p.created)
	if !known {
		p.created, p.floor = info.Created, 0
	}
	// Where nothing is done yet all begins at the first message, too: the new ones of then are old ones now.
	resumed := known && (p.floor > 0 || cfg.DeliverPolicy != jetstream.DeliverAllPolicy) &&
		info.Config.Retention != jetstream.WorkQueuePolicy // which has not what is done, and begins nowhere else
	if resumed {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, p.floor+1, nil
	}
	p.s.mu.Unlock()
	ample := cfg.MaxAckPending == 0
	if ample {
		cfg.MaxAckPending = ampleAckPending
	}
	made, err := p.create(ctx, cfg)
	for limit, exceeded := ackPendingLimit(err); exceeded && ample && limit < cfg.MaxAckPending; limit, exceeded = ackPendingLimit(err) {
		cfg.MaxAckPending = limit
		made, err = p.create(ctx, cfg)
	}
	if !errors.Is(err, fault.ErrAlreadyExists) {
		if err == nil && resumed {
			return made, p.confirm(ctx, info)
		}
		return made, err
	}
	live, err := p.info(ctx)
	if err != nil || !first {
		return live, err // as somebody has changed it meanwhile
	}
	// It may differ in where it began, having been made anew.
	began := live.Config
	if ample {
		cfg.MaxAckPending = began.MaxAckPending
	}
	cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = began.DeliverPolicy, began.OptStartSeq, began.OptStartTime
	return p.create(ctx, cfg)
}

func (p *puller) create(ctx context.Context, cfg jetstream.ConsumerConfig) (*jetstream.ConsumerInfo, error) {
	consumer, err := p.s.api.CreateConsumer(ctx, p.stream, cfg)
	if err != nil {
		return nil, jsapi.Wrap("create consumer", target(p.stream, p.s.Consumer), err)
	}
	return consumer.CachedInfo(), nil
}

// confirm deletes the consumer that was made to go on in a stream which was replaced meanwhile by another one:
// it would leave out as many messages of that.
func (p *puller) confirm(ctx context.Context, meant *jetstream.StreamInfo) error {
	is, err := p.s.api.StreamInfo(ctx, p.stream)
	if err != nil || is.Created.Equal(meant.Created) {
		return err
	}
	if err := p.s.api.Ask(ctx, "CONSUMER.DELETE."+p.stream+"."+p.s.Consumer, nil, nil); err != nil {
		return jsapi.Wrap("delete consumer", target(p.stream, p.s.Consumer), err)
	}
	return fault.New("create consumer", target(p.stream, p.s.Consumer), fault.ErrStreamNotFound, "it was replaced by another one")
}

// ampleAckPending is the MaxAckPending of a consumer that is made here: with so many messages that wait for
// their next try, others still come as fast.
const ampleAckPending = 20_000

const codeAckPendingLimit jetstream.ErrorCode = 10121

// ackPendingLimit returns the MaxAckPending that the server would allow, when err says that it does not allow
// one; 0 leaves it to the server.
func ackPendingLimit(err error) (limit int, exceeded bool) {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok || api.ErrorCode != codeAckPendingLimit {
		return 0, false
	}
	_, number, _ := strings.Cut(api.Description, "limit of ")
	limit, _ = strconv.Atoi(number) // 0 where there is none
	return limit, true
}

// noteFloor asks how far the own consumer has come, and tells whether it may.
func (p *puller) noteFloor() (allowed bool) {
	p.s.mu.Lock()
	p.moved = false
	p.s.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.s.quit, p.s.e.patience())
	defer cancel()
	info, err := p.info(ctx)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if err == nil {
		p.floor = max(p.floor, info.AckFloor.Stream)
	} else {
		p.moved = true
	}
	return !errors.Is(err, fault.ErrPermission)
}

// headerSchedule is on the messages by which a stream publishes others later. They are no work to be done:
// where an acknowledgement deletes a message, it would end the schedule.
const headerSchedule = "Nats-Schedule"

// checkFilters looks at what a consumer asks for, where it may know its stream: a filter that fits none of the subjects is
// told, for the server takes it, and nothing ever comes.
func (s *Consumption) checkFilters(ctx context.Context, info *jetstream.StreamInfo, consumer *jetstream.ConsumerConfig) error {
	if info == nil {
		return nil
	}
	cfg := &info.Config
	if cfg.Mirror == nil && len(cfg.Sources) == 0 && cfg.SubjectTransform == nil { // which store under other subjects
		for _, filter := range filtersOf(consumer) {
			if !slices.ContainsFunc(cfg.Subjects, func(subject string) bool { return subjects.Meets(filter, subject) }) {
				s.log.Warn("the consumer's filter fits no subject of its stream", "filter", filter, "subjects", cfg.Subjects)
			}
		}
	}
	return s.checkSchedules(ctx, cfg, consumer)
}

// checkSchedules refuses a consumer that gets the stream's schedules: one of all its subjects, where schedules
// are allowed, and one whose first or last message is one. Where it may not look, they are told from other
// messages when they come.
func (s *Consumption) checkSchedules(ctx context.Context, stream *jetstream.StreamConfig, consumer *jetstream.ConsumerConfig) error {
	if !stream.AllowMsgSchedules {
		return nil
	}
	filters := filtersOf(consumer)
	s.scheduled.Store(true)
	const text = "filter %q gets the schedules of the stream, which would be handled, and acknowledged, as messages; " +
		"give the consumer a filter of the subjects that they publish to"
	if len(filters) == 0 {
		return fault.New("consume", target(s.Stream, s.Consumer), fault.ErrInvalidArgument, text, ">")
	}
	for _, filter := range filters {
		part := slices.ContainsFunc(stream.Subjects, func(subject string) bool { return !subjects.Covers(filter, subject) })
		if !part || s.isSchedule(ctx, wire.Get{Sequence: 1, NextFor: filter}) || s.isSchedule(ctx, wire.Get{LastFor: filter}) {
			return fault.New("consume", target(s.Stream, s.Consumer), fault.ErrInvalidArgument, text, filter)
		}
	}
	return nil
}

func (s *Consumption) isSchedule(ctx context.Context, question wire.Get) bool {
	found, err := s.api.Stored(ctx, s.Stream, question)
	return err == nil && found.Header.Get(headerSchedule) != ""
}

// passOver leaves a schedule alone that has come as a message.
func (s *Consumption) passOver(d *Delivery) bool {
	if !s.scheduled.Load() || d.Msg.Header.Get(headerSchedule) == "" {
		return false
	}
	s.note(slog.LevelError, "the consumer's filter gets a schedule of the stream; it is left alone", d, nextAfter(foreignDelay))
	_, _ = s.putOff(d, foreignDelay)
	return true
}
