package nats

import (
	"context"
	"errors"
	"io"
)

// removeFull deletes v in a bucket that has no room for the mark of a deletion: first its chunks go, then, when that
// is not enough, its metadata. What a crash leaves of it is an object without content, or none.
func (s *ObjectStore) removeFull(ctx context.Context, op string, v objectVersion) error {
	expected := []uint64{v.sequence, 0}
	for step, sequence := range expected {
		err := s.evict(ctx, op, v, step)
		if err == nil {
			_, err = s.client.storeMeta(ctx, op, objectVersion{info: tombstone(v.info)}, sequence)
		}
		if !errors.Is(err, ErrStreamFull) {
			return err
		}
	}
	s.client.log.Warn("an object was deleted in a full bucket that has no room for the mark", "bucket", s.bucket, "object", v.info.Name)
	return nil
}

// makeRoom removes the object of that name, in two steps, for a smaller one to be put in its place, of which the source
// is turned back. It tells whether that is worth a try.
func (s *ObjectStore) makeRoom(ctx context.Context, name string, source sourcePosition, step int) bool {
	if source.Seeker == nil || step > 1 {
		return false
	}
	v, err := s.client.objectVersion(ctx, s.bucket, name)
	if err != nil || !v.there() || uint64(source.size) > v.info.Size {
		return false
	}
	if err := s.evict(ctx, opPutObject, v, step); err != nil {
		return false
	}
	_, err = source.Seek(source.offset, io.SeekStart)
	return err == nil
}

// evict removes the chunks of v, unless another name needs them, and in the second step its metadata.
func (s *ObjectStore) evict(ctx context.Context, op string, v objectVersion, step int) error {
	if step > 0 {
		_, err := s.purgeSubject(ctx, objectMetaSubject(s.bucket, v.info.Name), v.sequence)
		return err
	}
	shared, err := s.shared(ctx, op, v)
	if err == nil && !shared && v.hasChunks() {
		err = s.purgeWithin(ctx, v.info.NUID)
	}
	return err
}
