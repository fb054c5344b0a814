package nats

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Sweep removes the chunks that no object needs: what processes left that were killed, or lost the server for
// good, in the middle of an upload, an overwriting or a deletion. It returns how many chunks it removed. It
// leaves alone what was uploaded within the last olderThan, by the server's clock, which is to be longer than
// any upload pauses between two chunks; an upload that pauses for longer loses its chunks and fails with
// ErrObjectCorrupt. An hour is a good value for a job that runs every day.
//
// It is safe beside uploads, downloads and other Sweeps. A duration of less than a second is
// ErrInvalidArgument, a missing bucket ErrBucketNotFound. Without a deadline in ctx, Config.RequestTimeout bounds each question to
// the server. When it fails in the middle, the number tells what is done.
func (s *ObjectStore) Sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	const op = "sweep"
	if ctx == nil {
		return 0, errNilContext(op, s.bucket)
	}
	if olderThan < objectUnwatched {
		return 0, fail(op, s.bucket, ErrInvalidArgument, "olderThan is %v, and must be at least %v", olderThan, objectUnwatched)
	}
	removed, err := s.sweep(ctx, olderThan)
	if err != nil {
		return removed, objectError(op, s.bucket, "", err)
	}
	return removed, nil
}

func (s *ObjectStore) sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	prefix := objectChunks(s.bucket, "")
	// First the chunks, then the objects: an upload that ends in between is seen as an object.
	uploads, now, err := s.client.countSubjects(ctx, s.bucket, prefix+"*")
	if err != nil {
		return 0, err
	}
	// Twice, for an object that is renamed while the list is made may be in neither place.
	for range 2 {
		if len(uploads) == 0 {
			return 0, nil
		}
		objects, err := s.List(ctx)
		if err != nil {
			return 0, err
		}
		for object := range objects {
			delete(uploads, prefix+object.NUID)
		}
	}
	removed := 0
	for subject := range uploads {
		if err := context.Cause(ctx); err != nil {
			return removed, err
		}
		last, err := s.client.lastMessage(ctx, objectStreamPrefix+s.bucket, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // somebody else removed it
		}
		if err != nil {
			return removed, err
		}
		if now.Sub(last.Time) < olderThan {
			continue
		}
		n, err := s.purgeSubject(ctx, subject, last.Sequence)
		removed += n
		if err != nil {
			return removed, err
		}
		s.client.log.Info("swept an orphan's chunks", "bucket", s.bucket, "upload", strings.TrimPrefix(subject, prefix), "chunks", n)
	}
	return removed, nil
}
