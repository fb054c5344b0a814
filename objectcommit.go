package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
)

// commit makes the chunks the object, in the place of the version that is there, whose chunks it removes.
// It expects that very version: else one of two writers would leave the chunks of the other behind.
func (w *objectWriter) commit(ctx context.Context) error {
	c, info := w.store.client, &w.uploaded
	for race := 1; ; race++ {
		// The first look-up goes out while the last chunks are on their way.
		old, err := c.objectVersion(ctx, info.Bucket, info.Name)
		for err == nil && len(w.flying) > 0 {
			err = w.acked(ctx)
		}
		if err == nil {
			err = w.verify(ctx)
		}
		if err != nil {
			w.abandon()
			return err
		}
		m, err := c.objectMetaMessage(info, old.sequence)
		if err != nil {
			w.abandon()
			return err
		}
		_, err = c.storeObjectMessage(ctx, opPutObject, info, m)
		switch {
		case err == nil:
			info.ModTime = time.Now().UTC() // about the server's
			w.removeReplaced(ctx, old)
			return nil
		case errors.Is(err, ErrConflict) && errors.Is(err, conn.ErrUnanswered):
			w.store.leaveBehind(w.subject, err) // another writer may have replaced the object already
			return err
		case errors.Is(err, ErrConflict) && race < objectRaces:
			continue
		case isDoubtful(ctx, err):
			w.settle(m, old)
			return err
		}
		w.abandon()
		return err
	}
}

// verify counts the chunks where they may not be what was sent: after a message ID was forgotten, or a
// Sweep took a slow upload for an orphan.
func (w *objectWriter) verify(ctx context.Context) error {
	if !w.doubt && time.Since(w.begun) < objectUnwatched {
		return nil
	}
	stored, err := w.store.client.storedChunks(ctx, w.store.bucket, w.uploaded.NUID)
	if err == nil && stored != uint64(w.uploaded.Chunks) {
		err = fmt.Errorf("%w: %d chunks were stored and there are %d", ErrObjectCorrupt, w.uploaded.Chunks, stored)
	}
	return err
}

// isDoubtful tells whether the message that failed may be stored all the same.
func isDoubtful(ctx context.Context, err error) bool {
	if errors.Is(err, ErrNotConnected) {
		return false
	}
	return ctx.Err() != nil || errors.Is(err, ErrTimeout) || errors.Is(err, ErrConnectionLost) || errors.Is(err, ErrClosed)
}

func (w *objectWriter) removeReplaced(ctx context.Context, old objectVersion) {
	if old.hasChunks() {
		w.store.purge(ctx, old.info.NUID)
	}
}

// abandon removes what was uploaded, without keeping the caller waiting; Shutdown waits for it.
func (w *objectWriter) abandon() {
	if w.uploaded.Chunks == 0 {
		return // none was sent
	}
	w.store.afterwards(w.subject, func(ctx context.Context) error {
		defer time.AfterFunc(objectCleanup, w.giveUp).Stop()
		for _, chunk := range w.flying {
			_, _, _ = chunk.future.result(true) // what is still on its way would miss the purge
		}
		return w.store.purgeWithin(ctx, w.uploaded.NUID)
	})
}

// settle finds out, without keeping the caller waiting, whether the metadata is stored: it sends it again
// under the same ID. So the object is there as a whole, or nothing is left of it.
func (w *objectWriter) settle(m *natsgo.Msg, old objectVersion) {
	w.store.afterwards(w.subject, func(ctx context.Context) error {
		c, info := w.store.client, &w.uploaded
		_, err := c.storeObjectMessage(ctx, opPutObject, info, m)
		if errors.Is(err, ErrConflict) { // perhaps with itself
			now, lookup := c.objectVersion(ctx, info.Bucket, info.Name)
			if lookup == nil && now.info != nil && now.info.NUID == info.NUID {
				err = nil
			}
		}
		switch {
		case err == nil:
			w.removeReplaced(ctx, old)
		case isDoubtful(ctx, err), errors.Is(err, ErrConflict):
			return err
		default:
			return w.store.purgeWithin(ctx, info.NUID)
		}
		return nil
	})
}

// afterwards runs f beside the caller. Shutdown waits for it, unless there is no connection. When it fails,
// or the client is closed already, chunks may be left behind.
func (s *ObjectStore) afterwards(subject string, f func(context.Context) error) {
	c := s.client
	ended, err := c.life.Begin()
	if err != nil {
		s.leaveBehind(subject, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), objectAftermath)
	forget, err := c.life.OnClose(func() {
		if !c.IsConnected() {
			cancel()
		}
	})
	if err != nil { // Shutdown has begun in between
		forget = func() {}
	}
	go func() {
		defer ended()
		defer cancel()
		defer forget()
		if err := f(ctx); err != nil {
			s.leaveBehind(subject, err)
		}
	}()
}
