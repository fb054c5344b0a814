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
