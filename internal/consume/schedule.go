package consume

import (
	"context"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// headerSchedule is on the messages by which a stream publishes others later. They are no work to be done:
// where an acknowledgement deletes a message, it would end the schedule.
const headerSchedule = "Nats-Schedule"

// checkSchedules refuses a consumer that gets the stream's schedules: one of all its subjects, where schedules
// are allowed, and one whose first or last message is one. Where it may not look, they are told from other
// messages when they come.
func (s *Consumption) checkSchedules(ctx context.Context, info *jetstream.StreamInfo, consumer *jetstream.ConsumerConfig) error {
	if info == nil || !info.Config.AllowMsgSchedules {
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
		all := true
		for _, subject := range info.Config.Subjects {
			all = all && subjects.Covers(filter, subject)
		}
		if all || s.isSchedule(ctx, wire.Get{Sequence: 1, NextFor: filter}) || s.isSchedule(ctx, wire.Get{LastFor: filter}) {
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
	s.nakAfter(d, foreignDelay)
	return true
}
