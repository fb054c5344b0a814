package publish

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// check refuses what would do harm in the stream, for which the stream is asked.
func (p *Publisher) check(ctx context.Context, op string, m *natsgo.Msg) error {
	if err := p.checkSchedule(ctx, op, m); err != nil {
		return err
	}
	return p.checkLastID(ctx, op, m)
}

// checkLastID refuses to expect the ID of the last message in a stream with replicas: nats-server 2.15 compares it
// after the replicas have agreed on the message, and when the last one has another ID each of them gives up the whole
// stream (processJetStreamMsg and applyStreamMsgOp).
func (p *Publisher) checkLastID(ctx context.Context, op string, m *natsgo.Msg) error {
	if len(m.Header[jetstream.ExpectedLastMsgIDHeader]) == 0 {
		return nil
	}
	ctx, cancel := p.conn.Deadline(ctx)
	defer cancel()
	var info *jetstream.StreamInfo
	name, err := p.api.StreamOf(ctx, m.Subject)
	if err == nil {
		of, _ := p.api.Of(m.Subject)
		info, err = of.StreamInfo(ctx, name)
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound): // which the publish will tell
		return nil
	case err != nil:
		return fault.Wrap(op, m.Subject, fmt.Errorf("whether its stream has replicas must be known, for those do not outlive an unexpected message ID: %w", err))
	case info.Config.Replicas > 1:
		return fault.New(op, m.Subject, fault.ErrUnsupported,
			"stream %q has %d replicas, and an unexpected last message ID ends them all; expect a sequence instead", name, info.Config.Replicas)
	}
	return nil
}

// checkSchedule refuses a schedule that would lose messages in silence: one whose time its stream does not let it
// live to see, and one on a subject that holds another, which the server would remove, unless a sequence of the
// subject is expected.
func (p *Publisher) checkSchedule(ctx context.Context, op string, m *natsgo.Msg) error {
	if len(m.Header[jetstream.ScheduleHeader]) == 0 {
		return nil
	}
	ctx, cancel := p.conn.Deadline(ctx)
	defer cancel()
	if len(m.Header[jetstream.ExpectedLastSubjSeqHeader]) == 0 {
		_, last, err := p.storedFor(ctx, m.Subject, wire.Get{LastFor: strings.TrimPrefix(m.Subject, p.api.Subject(""))})
		if err == nil && last.Header.Get(jetstream.ScheduleHeader) != "" {
			return fault.New(op, m.Subject, fault.ErrConflict, occupied)
		}
		// Where there is no right to look, the subject must be empty.
		m.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(last.Sequence, 10)}
	}
	pattern := m.Header.Get(jetstream.ScheduleHeader)
	var wait time.Duration
	if at, ok := strings.CutPrefix(pattern, "@at "); ok {
		if t, err := time.Parse(time.RFC3339, at); err == nil { // else the server refuses it
			wait = time.Until(t)
		}
	} else if every, ok := strings.CutPrefix(pattern, "@every "); ok {
		wait, _ = time.ParseDuration(every)
	}
	life, what := time.Duration(0), "its own TTL"
	if ttl := wire.TTL(m.Header); ttl != 0 { // in the place of MaxAge
		life = ttl
	} else if wait > 0 {
		life, what = p.api.MaxAge(ctx, m.Subject), "MaxAge of its stream"
	}
	if life > 0 && wait > life {
		return fault.New(op, m.Subject, fault.ErrInvalidArgument, "%s, %v, removes the schedule before its time, %s", what, life, pattern)
	}
	return nil
}

// occupied is why a schedule is refused whose subject holds another.
const occupied = "its subject holds another schedule, which this one would remove; jetstream.WithExpectLastSequencePerSubject does so on purpose"

// refused adds that to the error of a schedule that met another writer.
func refused(m *natsgo.Msg, err error) error {
	if fault.Kind(err) == fault.ErrConflict && len(m.Header[jetstream.ScheduleHeader]) > 0 { //nolint:errorlint // a sentinel of our own table
		return fmt.Errorf("%s: %w", occupied, err)
	}
	return err
}
