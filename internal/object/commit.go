package object

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// commit makes the chunks the object, in the place of the version that is there, whose chunks it removes.
// It expects that very version: else one of two writers would leave the chunks of the other behind.
func (w *writer) commit(ctx context.Context) error {
	info := &w.uploaded
	var old version
	var lost error // a conflict
	for race := 1; ; race++ {
		// The first look-up goes out while the last chunks are on their way.
		now, err := w.store.version(ctx, info.Bucket, info.Name)
		for err == nil && len(w.flying) > 0 {
			err = w.acked(ctx)
		}
		switch {
		case err != nil:
		case now.has(info.NUID): // it lost to itself
			return w.committed(ctx, old, now.sequence)
		case errors.Is(lost, conn.ErrUnanswered): // another writer may have replaced or renamed the object already
			w.store.afterwards(w.subject, func(ctx context.Context) error { return w.store.sweepAway(ctx, info.NUID) })
			return lost
		default:
			if err = w.mayReplace(ctx, now); err != nil {
				break
			}
			var shared bool
			if shared, err = w.store.shared(ctx, opPut, now); errors.Is(err, fault.ErrConflict) && race < races {
				continue
			}
			if shared {
				now.info = nil // the other name keeps the chunks
			}
		}
		if err != nil {
			w.abandon(ctx, err)
			return err
		}
		old = now
		m, err := w.store.message(version{info: info}, old.sequence)
		if err != nil {
			w.abandon(ctx, err)
			return err
		}
		sequence, err := w.store.storeMessage(ctx, opPut, info, m)
		switch {
		case err == nil:
			return w.committed(ctx, old, sequence)
		case errors.Is(err, fault.ErrConflict) && race < races:
			lost = err
			continue
		case isDoubtful(ctx, err):
			w.settle(m, old)
			return err
		}
		w.abandon(ctx, err)
		return err
	}
}

// mayReplace tells what speaks against putting the object in the place of the version that is there.
func (w *writer) mayReplace(ctx context.Context, now version) error {
	if w.replaces != nil {
		if err := w.replaces(now); err != nil {
			return err
		}
	}
	return w.verify(ctx, false)
}

// committed ends an upload that is the object now. While it is not known whether a Sweep has taken its chunks, it goes on
// to find out beside the caller.
func (w *writer) committed(ctx context.Context, old version, sequence uint64) error {
	err := w.conclude(ctx, old, sequence)
	if err == nil || errors.Is(err, fault.ErrObjectCorrupt) {
		return err
	}
	w.store.afterwards(w.subject, func(ctx context.Context) error {
		if err := w.conclude(ctx, old, sequence); !errors.Is(err, fault.ErrObjectCorrupt) {
			return err
		}
		return nil
	})
	return err
}

// conclude removes what the object has replaced or, when a Sweep has taken the chunks, puts that back.
func (w *writer) conclude(ctx context.Context, old version, sequence uint64) error {
	err := w.verify(ctx, true)
	if errors.Is(err, fault.ErrObjectCorrupt) { // or it has been replaced since, and its chunks were removed for that
		switch now, failed := w.store.version(ctx, w.uploaded.Bucket, w.uploaded.Name); {
		case failed != nil: // nobody knows
			err = failed
		case !now.has(w.uploaded.NUID):
			err = nil
		default:
			w.putBack(ctx, old, sequence)
		}
	}
	if err == nil {
		w.uploaded.ModTime = time.Now().UTC() // about the server's
		w.store.release(ctx, old)
	}
	return err
}

// putBack puts back what there was before the object, whose sequence it has been since.
func (w *writer) putBack(ctx context.Context, old version, sequence uint64) {
	w.store.soon(ctx, w.subject, func(ctx context.Context) error {
		if !old.there() {
			old = version{info: tombstone(&w.uploaded)}
		}
		if _, err := w.store.storeMeta(ctx, opPut, old, sequence); err != nil && !errors.Is(err, fault.ErrConflict) {
			return err
		}
		return w.store.purgeWithin(ctx, w.uploaded.NUID)
	})
}

// verify counts the chunks where they may not be what was sent: after a message ID was forgotten, or when a Sweep may
// have taken a slow upload for an orphan. A Sweep claims the chunks before it looks for the object a last time, so
// that one of the two sees the other.
func (w *writer) verify(ctx context.Context, committed bool) error {
	if !w.doubt && time.Since(w.begun) < unwatched {
		return nil
	}
	if committed {
		switch _, err := w.store.api.Stored(ctx, StreamPrefix+w.store.bucket, wire.Get{LastFor: w.subject + claimSuffix}); {
		case err == nil:
			return fmt.Errorf("%w: a Sweep is removing the chunks of an upload that paused for so long", fault.ErrObjectCorrupt)
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return err
		}
	}
	stored, err := w.store.storedChunks(ctx, w.store.bucket, w.uploaded.NUID)
	if err == nil && stored != uint64(w.uploaded.Chunks) {
		err = fmt.Errorf("%w: %d chunks were stored and there are %d", fault.ErrObjectCorrupt, w.uploaded.Chunks, stored)
	}
	return err
}

// isDoubtful tells whether the message that failed may be stored all the same.
func isDoubtful(ctx context.Context, err error) bool {
	if errors.Is(err, fault.ErrNotConnected) {
		return false
	}
	return ctx.Err() != nil || errors.Is(err, fault.ErrTimeout) || errors.Is(err, fault.ErrConnectionLost) || errors.Is(err, fault.ErrClosed)
}

// abandon removes what was uploaded, without keeping the caller waiting; Shutdown waits for it.
func (w *writer) abandon(ctx context.Context, err error) {
	if w.uploaded.Chunks == 0 {
		return // none was sent
	}
	if errors.Is(err, fault.ErrWrongDomain) { // what is stored is another's
		w.giveUp()
		w.store.leaveBehind(w.subject, err)
		return
	}
	remove := func(ctx context.Context) error {
		defer time.AfterFunc(landing, w.giveUp).Stop()
		for _, chunk := range w.flying {
			_, _, _ = chunk.future.Result(true) // what is still on its way would miss the purge
		}
		return w.store.purgeWithin(ctx, w.uploaded.NUID)
	}
	switch {
	case fault.IsFull(err): // the caller may need the room
		w.store.soon(ctx, w.subject, remove)
	case errors.Is(err, fault.ErrClosed): // Close waits for this very call
		if err := remove(ctx); err != nil {
			w.store.leaveBehind(w.subject, err)
		}
	default:
		w.store.afterwards(w.subject, remove)
	}
}

// settle finds out, without keeping the caller waiting, whether the metadata is stored: it sends it again
// under the same ID. So the object is there as a whole, or nothing is left of it.
func (w *writer) settle(m *natsgo.Msg, old version) {
	w.store.afterwards(w.subject, func(ctx context.Context) error {
		_, err := w.store.storeMessage(ctx, opPut, &w.uploaded, m)
		switch {
		case err == nil && old.hasChunks():
			return w.store.purgeWithin(ctx, old.info.NUID)
		case errors.Is(err, fault.ErrConflict): // perhaps with who has replaced or renamed it since
			return w.store.sweepAway(ctx, w.uploaded.NUID)
		case isDoubtful(ctx, err):
			return err
		case err != nil:
			return w.store.purgeWithin(ctx, w.uploaded.NUID)
		}
		return nil
	})
}

// soon runs f, also when ctx has ended, and beside the caller when it takes long.
func (s *Store) soon(ctx context.Context, subject string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	if f(ctx) != nil {
		s.afterwards(subject, f)
	}
}

// afterwards runs f beside the caller. Shutdown waits for it, unless there is no connection. When it fails,
// or the client is closed already, chunks may be left behind.
func (s *Store) afterwards(subject string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), aftermath)
	ctx, done, err := s.life.Attend(ctx, s.conn.IsUp)
	if err != nil {
		cancel()
		s.leaveBehind(subject, err)
		return
	}
	go func() {
		defer cancel()
		defer done()
		if err := f(ctx); err != nil {
			s.leaveBehind(subject, err)
		}
	}()
}
