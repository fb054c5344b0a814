package object

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// rename gives the chunks of an object to another name, in three steps, after each of which it may be cut. The old
// name says where the chunks are going; the new name gets them, and says where they are from; the old one is deleted.
// So whoever deletes or replaces an object with such a mark knows where else its chunks may be needed, and the same
// rename, or the one back, goes on from there.
//
// Every step expects the version that it has seen. Nobody removes chunks but who has seen that no other name has
// them, in such a way that none gets them any more, and replaces the very version that was there before.
func (s *Store) rename(ctx context.Context, op, name string, meta jetstream.ObjectMeta) error {
	ctx, cancel := s.conn.Deadline(ctx)
	defer cancel()
	old, err := s.version(ctx, s.bucket, name)
	if err != nil {
		return err
	}
	info, err := described(old, meta)
	if err != nil {
		return err
	}
	taken, err := s.version(ctx, s.bucket, meta.Name)
	if err != nil {
		return err
	}
	if taken.there() && !taken.has(info.NUID) { // else it has been cut
		return jetstream.ErrObjectAlreadyExists
	}
	if other := old.move.other(); other != "" && other != meta.Name {
		if old, err = s.endMove(ctx, op, old); err != nil {
			return err
		}
	}
	leaving, err := s.storeMeta(ctx, op, version{info: old.info, move: moved{To: meta.Name}}, old.sequence)
	if err != nil {
		return err
	}
	if _, err := s.storeMeta(ctx, op, version{info: info, move: moved{From: name}}, taken.sequence); err != nil {
		return err
	}
	gone, err := s.storeMeta(ctx, op, version{info: tombstone(old.info)}, leaving)
	if err == nil {
		_, err = s.purgeSubject(ctx, MetaSubject(s.bucket, name), gone) // as upstream leaves no trace of it
		return err
	}
	if !errors.Is(err, fault.ErrConflict) {
		return err
	}
	if now, failed := s.version(ctx, s.bucket, name); failed != nil || !now.has(info.NUID) {
		return failed // the object is there under the new name, and another one, or none, under the old
	}
	// Somebody has changed the object, which is to stay where it is.
	for race := 1; ; race++ {
		renamed, failed := s.version(ctx, s.bucket, meta.Name)
		if failed == nil && renamed.has(info.NUID) && renamed.move.From == name {
			failed = s.remove(ctx, op, renamed)
		}
		if !errors.Is(failed, fault.ErrConflict) || race == races {
			if failed != nil {
				return failed
			}
			return err
		}
	}
}

// endMove ends another rename of the object, which was cut or is under way: the object is where v is, and nowhere else.
func (s *Store) endMove(ctx context.Context, op string, v version) (version, error) {
	// A new version of it keeps the other rename from going on; before that the object may have moved.
	sequence, err := s.storeMeta(ctx, op, v, v.sequence)
	v.sequence = sequence
	for race := 1; err == nil; race++ {
		var other version
		if other, err = s.version(ctx, s.bucket, v.move.other()); err != nil || v.move.From != "" && !other.has(v.info.NUID) {
			break
		}
		if err = s.bar(ctx, op, v, other); !errors.Is(err, fault.ErrConflict) || race == races {
			break
		}
		err = nil
	}
	return v, err
}

// bar deletes what the other name has of v's chunks. When it has none, the mark of a deletion keeps a rename that is
// under way from giving them to it.
func (s *Store) bar(ctx context.Context, op string, v, other version) error {
	if other.there() && !other.has(v.info.NUID) {
		return nil
	}
	if other.info == nil {
		other.info = &jetstream.ObjectInfo{ObjectMeta: jetstream.ObjectMeta{Name: v.move.other()}, Bucket: s.bucket, NUID: v.info.NUID}
	}
	_, err := s.storeMeta(ctx, op, version{info: tombstone(other.info)}, other.sequence)
	return err
}

// shared tells, before v is replaced, whether another name needs its chunks. When none does, none will.
func (s *Store) shared(ctx context.Context, op string, v version) (bool, error) {
	for race := 1; v.there() && v.move.other() != ""; race++ {
		other, err := s.version(ctx, s.bucket, v.move.other())
		if err != nil {
			return false, err
		}
		has := other.has(v.info.NUID)
		switch {
		case v.move.To != "" && !has:
			err = s.bar(ctx, op, v, other)
		case v.move.From != "" && has: // the rename is not to end, should it be under way
			_, err = s.storeMeta(ctx, op, other, other.sequence)
		}
		if !errors.Is(err, fault.ErrConflict) || race == races {
			return has, err
		}
	}
	return false, nil
}

// remove deletes v, or returns ErrConflict when it is not the last version.
func (s *Store) remove(ctx context.Context, op string, v version) error {
	shared, err := s.shared(ctx, op, v)
	if err != nil {
		return err
	}
	gone := version{info: tombstone(v.info)}
	if shared {
		gone.move = v.move // for the other name, should it be deleted at the same time
	}
	if _, err := s.storeMeta(ctx, op, gone, v.sequence); err != nil {
		return err
	}
	s.release(ctx, v, shared)
	return nil
}

// release removes the chunks of a version that was replaced, also when ctx has ended. Those that were shared it
// removes when the other name has been deleted meanwhile.
func (s *Store) release(ctx context.Context, v version, shared bool) {
	if !v.hasChunks() {
		return
	}
	s.soon(ctx, chunkSubject(s.bucket, v.info.NUID), func(ctx context.Context) error {
		if shared {
			other, err := s.version(ctx, s.bucket, v.move.other())
			if err != nil || other.there() || other.info == nil || other.info.NUID != v.info.NUID || other.move.other() != v.info.Name {
				return err
			}
		}
		return s.purgeWithin(ctx, v.info.NUID)
	})
}
