package object

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// CutRename stores an object under both names, as a rename leaves it that is cut before its last step, and returns its
// NUID.
func (s *Store) CutRename(ctx context.Context, name, other string) (string, error) {
	info, err := s.Put(ctx, jetstream.ObjectMeta{Name: name}, strings.NewReader("content"), Options{})
	if err != nil {
		return "", err
	}
	v, err := s.version(ctx, s.bucket, name)
	if err != nil {
		return "", err
	}
	if _, err := s.storeMeta(ctx, opPut, version{info: v.info, move: moved{To: other}}, v.sequence); err != nil {
		return "", err
	}
	renamed := *info
	renamed.Name = other
	_, err = s.storeMeta(ctx, opPut, version{info: &renamed, move: moved{From: name}}, 0)
	return info.NUID, err
}

// StoredChunks returns how many chunks of an upload are stored.
func (s *Store) StoredChunks(ctx context.Context, nuid string) (uint64, error) {
	return s.storedChunks(ctx, s.bucket, nuid)
}

// SweepAway removes the chunks of uploads that no object has.
func (s *Store) SweepAway(ctx context.Context, nuids ...string) error {
	return s.sweepAway(ctx, nuids...)
}

// PutSlowly stores an object, and calls meanwhile between its commit and the look at what is stored.
func (s *Store) PutSlowly(ctx context.Context, name string, meanwhile func()) error {
	w, err := s.newWriter(ctx, jetstream.ObjectMeta{Name: name})
	if err != nil {
		return err
	}
	defer w.giveUp()
	w.doubt, w.total = true, -1
	if err := w.upload(ctx, strings.NewReader("content")); err != nil {
		return err
	}
	for len(w.flying) > 0 {
		if err := w.acked(ctx); err != nil {
			return err
		}
	}
	old, err := s.version(ctx, s.bucket, name)
	if err != nil {
		return err
	}
	sequence, err := s.storeMeta(ctx, opPut, version{info: &w.uploaded}, old.sequence)
	if err != nil {
		return err
	}
	meanwhile()
	return w.committed(ctx, old, sequence)
}

// PutOutOfOrder stores an object whose first chunk cannot be stored anew after it came behind its successors.
func (s *Store) PutOutOfOrder(ctx context.Context, name string) error {
	w, err := s.newWriter(ctx, jetstream.ObjectMeta{Name: name})
	if err != nil {
		return err
	}
	w.total = -1
	if err := w.upload(ctx, strings.NewReader("content")); err != nil {
		return err
	}
	<-w.flying[0].future.Settled()
	w.flying[0].data = make([]byte, s.conn.MaxPayload()+1)
	err = w.reorder(ctx)
	w.abandon(ctx, err)
	return err
}
