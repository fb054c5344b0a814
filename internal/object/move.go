package object

import (
	"cmp"
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// rename gives the chunks of an object to another name, in three steps, after each of which it may be cut. The old
// name says where the chunks are going; the new name gets them, and says where they are from; the old one is deleted.
// The same rename, or the one back, goes on from there.
//
// While both names have the chunks, the old one decides which of them keeps them. As long as it says that they are
// going, whoever deletes or replaces it leaves them to the new name. Whoever is to delete or replace the new one, or
// to keep the object where it is, first has the old one say that the rename is undone; what the new name has is a
// remnant from then on, and goes before the chunks do.
//
// Every step expects the version that it has seen, and nobody deletes what one name has but who has seen, in this
// order, that name, and that the other one still says what makes it superfluous.
func (s *Store) rename(ctx context.Context, op, name string, meta jetstream.ObjectMeta) error {
	ctx, cancel := s.conn.Deadline(ctx)
	defer cancel()
	old, err := s.settled(ctx, op, name, meta.Name)
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
	if taken.there() && (!taken.has(info.NUID) || taken.move.From != name) { // else it has been cut
		return jetstream.ErrObjectAlreadyExists
	}
	leaving, err := s.storeMeta(ctx, op, version{info: old.info, move: moved{To: meta.Name}}, old.sequence)
	if err != nil {
		return err
	}
	if _, err := s.storeMeta(ctx, op, version{info: info, move: moved{From: name}}, taken.sequence); err != nil {
		return err
	}
	gone, err := s.storeMeta(ctx, op, version{info: tombstone(old.info)}, leaving)
	if err == nil { // upstream leaves no trace of it; where that fails, there is the mark of a deletion as of any other
		_, _ = s.purgeSubject(ctx, metaSubject(s.bucket, name), gone)
		return nil
	}
	if !errors.Is(err, fault.ErrConflict) {
		return err
	}
	// Somebody has changed the object, which is to stay where it is, unless its new name has it already.
	for race := 1; ; race++ {
		now, failed := s.version(ctx, s.bucket, name)
		if failed == nil && !now.has(info.NUID) {
			return nil
		}
		if failed == nil && (now.move.To == meta.Name || now.move.Undone == meta.Name) {
			_, failed = s.own(ctx, op, now)
		}
		if !errors.Is(failed, fault.ErrConflict) || race == races {
			return cmp.Or(failed, err)
		}
	}
}

// settled returns the version of an object that has no other name, but for the one to which it is going.
func (s *Store) settled(ctx context.Context, op, name, going string) (version, error) {
	for race := 1; ; race++ {
		v, err := s.version(ctx, s.bucket, name)
		if err == nil && v.there() && v.move.other() != "" && v.move.To != going {
			v, err = s.own(ctx, op, v)
		}
		if !errors.Is(err, fault.ErrConflict) || race == races {
			return v, err
		}
	}
}

// own ends the rename that v tells of: the object is where v is, and nowhere else.
func (s *Store) own(ctx context.Context, op string, v version) (_ version, err error) {
	if v.move.To != "" {
		if v, err = s.undo(ctx, op, v); err != nil {
			return v, err
		}
	}
	other, err := s.version(ctx, s.bucket, v.move.other())
	switch {
	case err != nil:
	case v.move.Undone != "":
		err = s.bar(ctx, op, v, other)
	case !other.has(v.info.NUID):
	case other.move.To == v.info.Name:
		if err = s.unchanged(ctx, v); err == nil {
			_, err = s.storeMeta(ctx, op, version{info: tombstone(other.info)}, other.sequence)
		}
	default:
		if _, err = s.storeMeta(ctx, op, version{info: tombstone(v.info)}, v.sequence); err == nil {
			err = jetstream.ErrObjectNotFound
		}
	}
	return v, err
}

// undo says that the object stays where v is.
func (s *Store) undo(ctx context.Context, op string, v version) (version, error) {
	v.move = moved{Undone: v.move.To}
	sequence, err := s.storeMeta(ctx, op, v, v.sequence)
	v.sequence = sequence
	return v, err
}

// bar deletes what the other name has of v's chunks. When it has none, the mark of a deletion keeps a rename that is
// under way from giving them to it.
func (s *Store) bar(ctx context.Context, op string, v, other version) error {
	switch {
	case other.info == nil:
		other.info = &jetstream.ObjectInfo{ObjectMeta: jetstream.ObjectMeta{Name: v.move.other()}, Bucket: s.bucket, NUID: v.info.NUID}
	case other.has(v.info.NUID):
		if err := s.unchanged(ctx, v); err != nil {
			return err
		}
	case other.there():
		return nil
	}
	_, err := s.storeMeta(ctx, op, version{info: tombstone(other.info)}, other.sequence)
	return err
}

// unchanged returns ErrConflict when v is not the last version of its name.
func (s *Store) unchanged(ctx context.Context, v version) error {
	now, err := s.version(ctx, s.bucket, v.info.Name)
	if err == nil && now.sequence != v.sequence {
		err = fault.ErrConflict
	}
	return err
}

// shared tells, before v is replaced, whether another name needs its chunks. When none does, none will. It returns
// ErrConflict when that has to be asked of a new version.
func (s *Store) shared(ctx context.Context, op string, v version) (bool, error) {
	if !v.there() || v.move.other() == "" {
		return false, nil
	}
	other, err := s.version(ctx, s.bucket, v.move.other())
	has := other.has(v.info.NUID)
	switch {
	case err != nil:
	case v.move.From != "" && has && other.move.To == v.info.Name:
		_, err = s.undo(ctx, op, other)
	case v.move.From == "" && (v.move.Undone != "" || !has):
		return false, s.bar(ctx, op, v, other)
	}
	return has, err
}

// remove deletes v, or returns ErrConflict when it is not the last version.
func (s *Store) remove(ctx context.Context, op string, v version) error {
	shared, err := s.shared(ctx, op, v)
	if err != nil {
		return err
	}
	return s.bury(ctx, op, v, shared)
}

// bury marks v as deleted and, unless they are shared, removes its chunks.
func (s *Store) bury(ctx context.Context, op string, v version, shared bool) error {
	_, err := s.storeMeta(ctx, op, version{info: tombstone(v.info)}, v.sequence)
	if err == nil && !shared {
		s.release(ctx, v)
	}
	return err
}

// release removes the chunks of a version that was replaced, also when ctx has ended.
func (s *Store) release(ctx context.Context, v version) {
	if v.hasChunks() {
		s.soon(ctx, chunkSubject(s.bucket, v.info.NUID), func(ctx context.Context) error {
			return s.purgeWithin(ctx, v.info.NUID)
		})
	}
}
