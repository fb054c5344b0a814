package nats

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// ReplayOption changes what ReplayDeadLetters does.
type ReplayOption func(*replayOptions)

type replayOptions struct {
	stream string
	match  func(*DeadLetter) bool
	every  time.Duration
	dry    bool
}

// WithReplayFilter replays only the dead letters for which match returns true; the others stay.
func WithReplayFilter(match func(*DeadLetter) bool) ReplayOption {
	return func(o *replayOptions) { o.match = match }
}

// WithReplayRate replays at most n dead letters a second, evenly spread. The default, and the
// meaning of an n of zero or less, is as many as the server takes.
func WithReplayRate(n float64) ReplayOption {
	return func(o *replayOptions) {
		o.every = 0
		if n > 0 {
			o.every = time.Duration(float64(time.Second) / n)
		}
	}
}

// WithReplayDryRun counts the dead letters that would be replayed and changes nothing.
func WithReplayDryRun() ReplayOption {
	return func(o *replayOptions) { o.dry = true }
}

// WithReplayFrom reads the dead letters from another stream than "<stream>_DLQ": see WithDeadLetter.
func WithReplayFrom(deadLetters string) ReplayOption {
	return func(o *replayOptions) { o.stream = deadLetters }
}

// replayTimeout bounds the publishing and deleting of one dead letter.
const replayTimeout = 5 * time.Second

// ReplayDeadLetters publishes the dead letters of a stream to their original subjects and deletes
// them from the dead-letter stream, in the order in which they died, up to the last there is at the
// call. It returns how many it replayed.
//
// The message has its payload and headers again, but for the headers of the server (Nats-*), such as
// a message ID, under which it would be dropped as a duplicate, or a rollup. Every consumer of the
// stream gets it, not only the one that gave it up.
//
// When ctx ends, the dead letter at hand is finished and the error tells why it stopped; another
// call goes on with the rest. Every dead letter is replayed once, over calls, and over calls at the
// same time; after a crash too if it is replayed again within the duplicate window of the original
// stream (two minutes by default), since the message ID of a replay is the dead letter's own.
//
// The errors are ErrStreamNotFound when there is no dead-letter stream, and those of
// PublishMsgToStream.
func (c *Client) ReplayDeadLetters(ctx context.Context, stream string, opts ...ReplayOption) (int, error) {
	const op = "replay dead letters"
	o := replayOptions{stream: deadLetterStreamOf(stream)}
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	js, err := c.jetStream(ctx, op, stream)
	if err != nil {
		return 0, err
	}
	if err := checkName(op, "stream", stream); err != nil {
		return 0, err
	}
	if err := checkName(op, "stream", o.stream); err != nil {
		return 0, err
	}
	letters, err := js.Stream(ctx, o.stream)
	if err != nil {
		return 0, wrapJetStream(op, o.stream, fault.Because(ctx, err))
	}
	state := letters.CachedInfo().State
	pace := newReplayPace(o.every)
	defer pace.stop()
	replayed := 0
	for next := state.FirstSeq; next <= state.LastSeq; {
		raw, err := letters.GetMsg(ctx, next, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break // the rest has been replayed or deleted meanwhile
		}
		if err != nil {
			return replayed, wrapJetStream(op, o.stream, fault.Because(ctx, err))
		}
		if next = raw.Sequence + 1; next > state.LastSeq+1 {
			break
		}
		letter, err := readDeadLetter(raw.Subject, raw.Header, raw.Data)
		if err != nil || letter.Stream != stream || o.match != nil && !o.match(letter) {
			continue
		}
		if o.dry {
			replayed++
			continue
		}
		if err := pace.wait(ctx); err != nil {
			return replayed, wrap(op, o.stream, err)
		}
		mine, err := c.replay(ctx, letters, raw, letter)
		if mine {
			replayed++
		}
		if err != nil {
			return replayed, wrap(op, o.stream, err)
		}
	}
	return replayed, nil
}

// replay publishes one dead letter and deletes it, to the end even when ctx ends meanwhile. It tells
// whether it was this call that did.
func (c *Client) replay(ctx context.Context, letters jetstream.Stream, raw *jetstream.RawStreamMsg, letter *DeadLetter) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayTimeout)
	defer cancel()
	for name := range letter.Header {
		if wire.IsServers(name) {
			delete(letter.Header, name)
		}
	}
	id := "replay." + letters.CachedInfo().Config.Name + "." + strconv.FormatUint(raw.Sequence, 10) +
		"." + strconv.FormatInt(raw.Time.UnixNano(), 10)
	msg := &Message{Subject: letter.Subject, Header: letter.Header, Data: letter.Data}
	if _, err := c.PublishMsgToStream(ctx, msg, jetstream.WithMsgID(id)); err != nil {
		return false, err
	}
	err := letters.DeleteMsg(ctx, raw.Sequence)
	if err == nil {
		return true, nil
	}
	if _, gone := letters.GetMsg(ctx, raw.Sequence); errors.Is(gone, jetstream.ErrMsgNotFound) {
		return false, nil // another call was faster; this one's copy was recognised
	}
	return false, err
}

// replayPace spreads replays evenly; nil does not.
type replayPace struct{ ticker *time.Ticker }

func newReplayPace(every time.Duration) *replayPace {
	if every <= 0 {
		return nil
	}
	return &replayPace{time.NewTicker(every)}
}

func (p *replayPace) wait(ctx context.Context) error {
	if p == nil {
		return fault.Ended(ctx)
	}
	select {
	case <-p.ticker.C:
		return fault.Ended(ctx)
	case <-ctx.Done():
		return fault.Ended(ctx)
	}
}

func (p *replayPace) stop() {
	if p != nil {
		p.ticker.Stop()
	}
}
