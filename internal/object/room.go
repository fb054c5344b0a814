package object

import (
	"context"
	"io"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// removeFull deletes v in a bucket that has no room for the mark of a deletion: first its chunks go, then, when that
// is not enough, its metadata. What a crash leaves of it is an object without content, or none.
func (s *Store) removeFull(ctx context.Context, op string, v version) error {
	shared, err := s.evict(ctx, op, v, 0)
	if err == nil {
		err = s.bury(ctx, op, v, shared)
	}
	if fault.IsFull(err) {
		if _, err = s.evict(ctx, op, v, 1); err != nil {
			return err
		}
		v.sequence = 0
		err = s.bury(ctx, op, v, shared)
	}
	if !fault.IsFull(err) {
		return err
	}
	s.reports.Unmarked(s.bucket, v.info.Name)
	return nil
}

// makeRoom removes the object of that name, in two steps, for a smaller one to be put in its place, of which the source
// is turned back. It tells whether that is worth a try.
func (s *Store) makeRoom(ctx context.Context, name string, source position, step int) bool {
	if source.Seeker == nil || step > 1 {
		return false
	}
	v, err := s.version(ctx, s.bucket, name)
	if err != nil || !v.there() || uint64(source.size) > v.info.Size {
		return false
	}
	if _, err := s.evict(ctx, opPut, v, step); err != nil {
		return false
	}
	_, err = source.Seek(source.offset, io.SeekStart)
	return err == nil
}

// evict removes the chunks of v, unless another name needs them, and in the second step its metadata.
func (s *Store) evict(ctx context.Context, op string, v version, step int) (shared bool, err error) {
	if step > 0 {
		_, err = s.purgeSubject(ctx, metaSubject(s.bucket, v.info.Name), v.sequence)
		return false, err
	}
	shared, err = s.shared(ctx, op, v)
	if err == nil && !shared && v.hasChunks() {
		err = s.purgeWithin(ctx, v.info.NUID)
	}
	return shared || err != nil, err // in doubt they are left
}
