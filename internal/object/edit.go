package object

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Info returns what is known of an object, also of a deleted one if that is asked for.
func (s *Store) Info(ctx context.Context, name string, deleted bool) (*jetstream.ObjectInfo, error) {
	const op = "object info"
	version, err := s.version(ctx, s.bucket, name)
	if err != nil {
		return nil, s.wrap(op, name, err)
	}
	info, err := version.live()
	if version.info != nil && deleted {
		info, err = version.info, version.unread
	}
	if err != nil {
		return nil, s.wrap(op, name, err)
	}
	return info, nil
}

// Delete deletes an object.
func (s *Store) Delete(ctx context.Context, name string) error {
	const op = "delete object"
	bound, cancel := s.conn.Deadline(ctx)
	defer cancel()
	for race := 1; ; race++ {
		v, err := s.version(bound, s.bucket, name)
		if err == nil && !v.there() {
			err = jetstream.ErrObjectNotFound
		}
		if err == nil {
			if err = s.remove(bound, op, v); fault.IsFull(err) {
				err = s.removeFull(bound, op, v)
			}
		}
		if !errors.Is(err, fault.ErrConflict) || race == races {
			return s.wrap(op, name, err)
		}
	}
}

// tombstone returns the metadata of a deleted object.
func tombstone(info *jetstream.ObjectInfo) *jetstream.ObjectInfo {
	gone := *info
	gone.Deleted, gone.Size, gone.Chunks, gone.Digest = true, 0, 0, ""
	return &gone
}

// Describe changes the name, description, headers and metadata of an object.
func (s *Store) Describe(ctx context.Context, name string, meta jetstream.ObjectMeta) error {
	const op = "update object"
	v, err := s.version(ctx, s.bucket, name)
	if err == nil && v.hasChunks() {
		var bucket *jetstream.StreamInfo
		if bucket, err = s.state(ctx); err == nil && bucket.Config.MaxAge > 0 {
			return s.wrap(op, name, s.renew(ctx, op, v, meta))
		}
	}
	if err != nil {
		return named(op, s.bucket, name, err)
	}
	if meta.Name != name {
		if err = checkText(name, meta.Name); err == nil {
			err = s.rename(ctx, op, name, meta)
		}
		return s.wrap(op, name, err)
	}
	_, err = s.change(ctx, op, name, func(old version) (*jetstream.ObjectInfo, error) {
		return described(old, meta)
	})
	return s.wrap(op, name, err)
}

// renew stores an object anew, with other metadata.
func (s *Store) renew(ctx context.Context, op string, old version, meta jetstream.ObjectMeta) error {
	name := old.info.Name
	info, err := described(old, meta)
	if err != nil {
		return err
	}
	content, err := s.openChunks(ctx, name, old, Options{Unverified: true})
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	w, err := s.newWriter(ctx, info.ObjectMeta)
	if err != nil {
		return err
	}
	w.total = int64(info.Size)
	w.replaces = func(now version) error {
		switch {
		case meta.Name == name && !now.has(info.NUID):
			return fmt.Errorf("%w: replaced while it was changed", fault.ErrConflict)
		case meta.Name != name && now.there():
			return jetstream.ErrObjectAlreadyExists
		}
		return nil
	}
	now, err := s.version(ctx, s.bucket, meta.Name)
	if err == nil {
		err = w.replaces(now) // before all is sent
	}
	if err == nil {
		_, err = w.put(ctx, content)
	}
	if err != nil || meta.Name == name {
		return err
	}
	if now, err = s.version(ctx, s.bucket, name); err != nil || !now.has(info.NUID) {
		return err
	}
	return s.remove(ctx, op, now)
}

// described returns a copy of the object's metadata with what a user may change.
func described(old version, meta jetstream.ObjectMeta) (*jetstream.ObjectInfo, error) {
	if !old.there() {
		return nil, jetstream.ErrUpdateMetaDeleted
	}
	if old.unread != nil {
		return nil, old.unread
	}
	info := *old.info
	info.Name, info.Description, info.Headers, info.Metadata = meta.Name, meta.Description, meta.Headers, meta.Metadata
	return &info, nil
}

// checkText refuses names that the metadata of other objects cannot have, which are JSON.
func checkText(names ...string) error {
	for _, name := range names {
		if !utf8.ValidString(name) {
			return fault.New("", "", fault.ErrInvalidArgument, "the name %q is not UTF-8, so no link or rename can tell of it", name)
		}
	}
	return nil
}

// Link makes name stand for another object, or a bucket.
func (s *Store) Link(ctx context.Context, name string, link *jetstream.ObjectLink) (*jetstream.ObjectInfo, error) {
	const op = "add link"
	if err := checkText(link.Name); err != nil {
		return nil, s.wrap(op, name, err)
	}
	info, err := s.change(ctx, op, name, func(old version) (*jetstream.ObjectInfo, error) {
		if old.there() && !old.isLink() {
			return nil, jetstream.ErrObjectAlreadyExists
		}
		return &jetstream.ObjectInfo{
			ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{Link: link}},
			Bucket:     s.bucket, NUID: rand.Text(), ModTime: time.Now().UTC(),
		}, nil
	})
	if err != nil {
		return nil, s.wrap(op, name, err)
	}
	return info, nil
}
