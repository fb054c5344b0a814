package ordered

import (
	"cmp"
	"context"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// probe makes a round trip to the server. The answer comes after all that is on its way, so that a slow link,
// on which one message may take longer than the silence that is borne, does not pass for a dead consumer.
func (r *Reader) probe(ctx context.Context) <-chan error {
	answered := make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	go func() {
		defer cancel()
		err := r.conn.Flush(ctx)
		if err == nil && r.o.Lasting { // a pull that the server has read just before is answered a little later
			pause.Sleep(ctx, grace)
		}
		answered <- err
	}()
	return answered
}

// maxStarved is how many consumers may do so by chance.
const maxStarved = 3

// starve takes note of a silent consumer.
func (r *Reader) starve() error {
	if r.answers != 1 {
		r.starved = 0
		return nil
	}
	if r.starved++; r.starved < maxStarved {
		return nil
	}
	r.starved = 0
	r.Renew()
	return fault.ErrOneAnswer
}

// patience is how long the consumer may be silent.
func (r *Reader) patience() time.Duration {
	_, trip := r.conn.Peer()
	if r.beat > r.o.Heartbeat && !r.doubted {
		trip += 2 * r.beat
	}
	return r.o.Silence + trip
}

// Wake lets Next call Woken. Any goroutine may call it.
func (r *Reader) Wake() { r.part.Wake() }

// ServerSilence returns for how long neither a reader that lasts nor others of the client have heard of the server that
// leads its consumer, or Next has not waited, or had something to take. Any goroutine may call it.
func (r *Reader) ServerSilence() time.Duration {
	silence := r.part.Silence()
	if busy := r.busy.Load(); busy != 0 {
		silence = max(silence, time.Since(r.made)-time.Duration(busy))
	}
	return silence
}

// setBusy notes whether Next is kept from waiting.
func (r *Reader) setBusy(is bool) {
	switch was := r.busy.Load(); {
	case !is && was != 0:
		r.busy.Store(0)
	case is && was == 0:
		r.busy.Store(int64(time.Since(r.made)) + 1)
	}
}

// onWake asks sooner for a sign of life: always when it is the sentinel, and once when its server is silent.
func (r *Reader) onWake() error {
	alarmed := r.part.Alarmed()
	switch slow := r.beat > r.o.Heartbeat; {
	case slow && r.part.IsSentinel():
		r.refill()
		r.alarm.Reset(r.patience())
	case slow && alarmed && !r.doubted:
		r.doubted = true
		r.ask()
		r.alarm.Reset(r.patience())
	}
	if r.o.Woken != nil {
		return r.o.Woken()
	}
	return nil
}

// refill asks for more when half of what is to be asked for has come. Who is calm asks for half as much, so that there
// is room for the pull of a sentinel.
func (r *Reader) refill() {
	batch, beat, lasts := r.o.Batch, r.o.Heartbeat, r.expires
	if r.calm && !r.part.IsSentinel() {
		batch, beat, lasts = (batch+1)/2, r.calmBeat, calmExpires
	}
	n := batch - r.asked.Left()
	if n < batch/2 {
		return
	}
	if r.left >= 0 {
		n = int(min(int64(n), r.left-int64(r.asked.Left())))
	}
	if n <= 0 {
		return
	}
	bytes := 0
	if r.o.Total == 0 { // else the batch was made for what is there
		bytes = wire.PullBytes(n, r.conn.MaxPayload())
	}
	r.pull(n, bytes, lasts, beat)
}

// pull asks for messages; without a time that it lasts, for those that are there.
func (r *Reader) pull(n, bytes int, lasts, beat time.Duration) {
	body := wire.Pull(n, bytes, lasts, beat, lasts == 0)
	if r.conn.TryPublish(r.subject("MSG.NEXT", r.name), r.sub.Subject, body) == nil { // what goes wrong shows as silence
		r.asked.Add(n, bytes)
		r.beat = cmp.Or(beat, r.beat)
	}
}

// ask has the server say at once whether there is a message: it brings one, or that there is none.
func (r *Reader) ask() { r.pull(1, wire.AnyBytes, 0, 0) }

func (r *Reader) subject(verb, consumer string) string {
	return r.api.Subject("CONSUMER." + verb + "." + r.o.Stream + "." + consumer)
}

// onStatus takes the server's word on a pull: a heartbeat, its end, or that the consumer is gone.
func (r *Reader) onStatus(ctx context.Context, status string, m *natsgo.Msg) error {
	switch {
	case status == wire.StatusHeartbeat:
		r.part.Sign()
		r.failures = 0
		if wire.LastDelivered(m) != strconv.FormatUint(r.delivered, 10) {
			r.Renew() // the last messages were lost on their way
			return nil
		}
		return r.onIdle(ctx)
	case wire.PullEnded(m):
		r.part.Sign()
		r.asked.End(m)
		if r.calm = r.o.Lasting && status == wire.StatusTimeout; r.calm && !r.part.IsSentinel() {
			r.beat = r.calmBeat // of what is left, too
		}
		if wire.PullFull(m) {
			r.pull(1, wire.AnyBytes, r.expires, r.o.Heartbeat)
		}
		r.refill()
	case status == wire.StatusNotFound: // what was asked for
		r.part.Sign()
		r.asked.End(m)
		return r.onIdle(ctx)
	default:
		r.putOff(0)
	}
	return nil
}

// onIdle takes the server's word that it has nothing to deliver.
func (r *Reader) onIdle(ctx context.Context) error {
	r.mark(true)
	if r.o.Idle == nil {
		return nil
	}
	return r.o.Idle(ctx)
}
