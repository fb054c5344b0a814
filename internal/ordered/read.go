package ordered

import (
	"context"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
)

// readBatch is how many messages are asked for at once.
const readBatch = 512

// errReadAll ends a reading that has reached the end.
var errReadAll = errors.New("there is no more")

// Read calls each for the messages of a stream, each once, with a context that ends with the reading: to the last that
// there was at the beginning or, to follow, for as long as ctx lasts; and until each returns false. Begun tells whether
// there was a stream to read.
func Read(
	ctx context.Context, api *jsapi.API, life *lifecycle.Life, stream string, cfg jetstream.ConsumerConfig, follow bool,
	each func(context.Context, *natsgo.Msg) bool,
) (begun bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var r *Reader
	loop, err := life.Loop(func() { cancel(fault.ErrClosed) }, func() {
		if r != nil {
			r.Close()
		}
	})
	if err != nil {
		return false, err
	}
	defer loop.Over()
	if len(cfg.FilterSubjects) == 0 {
		cfg.FilterSubjects = []string{">"} // the server wants one for the last of each subject
	}
	o := Options{
		Stream: stream, Config: cfg, Batch: readBatch, Lasting: follow, Opened: Opening.Same,
		// A new consumer finds the last of each subject anew: what lies behind the last message that was
		// read has messages that are not.
		Whole: cfg.DeliverPolicy == jetstream.DeliverLastPerSubjectPolicy,
	}
	if !follow {
		o.Idle = func(ctx context.Context) error { return finished(ctx, r) }
	}
	r = New(api, o)
	defer r.Close()
	first, err := r.Start(ctx)
	if err != nil {
		return false, fault.Because(ctx, err)
	}
	if first.Pending == 0 && !follow {
		return true, nil
	}
	var last, end uint64 // sequences, in the stream and of the consumer
	for {
		if ctx.Err() != nil { // next may rather take what is there
			return true, fault.Ended(ctx)
		}
		m, d, err := r.Next(ctx)
		if errors.Is(err, errReadAll) {
			return true, nil
		}
		if err != nil {
			return true, fault.Because(ctx, err)
		}
		if d.Consumer == 1 {
			end = 1 + d.Pending
		}
		if seq := d.Sequence; seq > last {
			last = seq
			if !loop.Work(func() bool { return each(ctx, m) }) {
				return true, nil
			}
		}
		// One that is the last of its subject may have been replaced, by one behind that end.
		if d.Pending == 0 || !o.Whole && d.Consumer >= end {
			if !follow {
				return true, nil
			}
			r.SkipTo(last)
		}
	}
}

// finished returns errReadAll when the consumer has delivered all there is: the messages that it had
// announced may be gone. For those who may not ask, that it has nothing to deliver must do.
func finished(ctx context.Context, r *Reader) error {
	_, trip := r.conn.Peer()
	ctx, cancel := context.WithTimeout(ctx, time.Second+2*trip)
	defer cancel()
	info, err := r.api.ConsumerInfo(ctx, r.o.Stream, r.name)
	if err == nil && info.NumPending == 0 || errors.Is(err, natsgo.ErrPermissionViolation) {
		return errReadAll
	}
	return nil // whatever it is, the reader will find out
}
