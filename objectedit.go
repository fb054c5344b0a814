package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// GetInfo returns what is known of an object, or ErrObjectNotFound. It asks the leader of the bucket's
// stream, so that it sees what any Put has stored before. A link is described itself, not what it leads to.
func (s *ObjectStore) GetInfo(ctx context.Context, name string, opts ...jetstream.GetObjectInfoOpt) (*jetstream.ObjectInfo, error) {
	const op = "object info"
	if err := s.check(ctx, op, name); err != nil {
		return nil, err
	}
	version, err := s.client.objectVersion(ctx, s.bucket, name)
	if err != nil {
		return nil, s.wrap(op, name, err)
	}
	info, err := version.live()
	if version.info != nil && len(opts) > 0 { // upstream's only option shows the deleted ones
		info, err = version.info, version.unread
	}
	if err != nil {
		return nil, s.wrap(op, name, err)
	}
	return info, nil
}

// check refuses what no object can be called, and a nil context.
func (s *ObjectStore) check(ctx context.Context, op, name string) error {
	switch {
	case ctx == nil:
		return errNilContext(op, path(s.bucket, name))
	case name == "":
		return s.wrap(op, name, jetstream.ErrNameRequired)
	}
	if fault := s.client.objectNameFault(s.bucket, name); fault != "" {
		return fail(op, path(s.bucket, name), ErrInvalidArgument, "%s", fault)
	}
	return nil
}

// Delete deletes an object, or returns ErrObjectNotFound. It deletes what is there when the server gets to
// it, and removes the chunks of that very version.
func (s *ObjectStore) Delete(ctx context.Context, name string) error {
	const op = "delete object"
	if err := s.check(ctx, op, name); err != nil {
		return err
	}
	bound, cancel := s.client.deadline(ctx)
	defer cancel()
	for race := 1; ; race++ {
		v, err := s.client.objectVersion(bound, s.bucket, name)
		if err == nil && !v.there() {
			err = jetstream.ErrObjectNotFound
		}
		if err == nil {
			if err = s.remove(bound, op, v); errors.Is(err, ErrStreamFull) {
				err = s.removeFull(bound, op, v)
			}
		}
		if !errors.Is(err, ErrConflict) || race == objectRaces {
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

// UpdateMeta changes the name, description, headers or metadata of an object. It returns
// ErrObjectNotFound when there is none, ErrAlreadyExists when the new name is taken, and ErrConflict when
// the object was replaced while it was renamed. Upstream's may name chunks that a Put has removed meanwhile.
// A renaming that is cut may leave both names for the same object; then it can be repeated or turned back,
// and either name can be deleted or replaced: the other one keeps the object.
//
// In a bucket whose objects expire the content is stored anew, by way of this client, for else it would expire before its
// metadata: the object's time begins again.
func (s *ObjectStore) UpdateMeta(ctx context.Context, name string, meta jetstream.ObjectMeta) error {
	const op = "update object"
	if err := s.check(ctx, op, name); err != nil {
		return err
	}
	if err := s.check(ctx, op, meta.Name); err != nil {
		return err
	}
	v, err := s.client.objectVersion(ctx, s.bucket, name)
	if err == nil && v.hasChunks() {
		var bucket bucketState
		if bucket, err = s.client.bucketState(ctx, s.bucket, ""); err == nil && bucket.Config.MaxAge > 0 {
			return s.wrap(op, name, s.renew(ctx, op, v, meta))
		}
	}
	if err != nil {
		return objectError(op, s.bucket, name, err)
	}
	if meta.Name != name {
		return s.wrap(op, name, s.rename(ctx, op, name, meta))
	}
	_, _, err = s.changeObject(ctx, op, name, func(old objectVersion) (*jetstream.ObjectInfo, error) {
		return described(old, meta)
	})
	return s.wrap(op, name, err)
}

// renew stores an object anew, with other metadata.
func (s *ObjectStore) renew(ctx context.Context, op string, old objectVersion, meta jetstream.ObjectMeta) error {
	name := old.info.Name
	info, err := described(old, meta)
	if err != nil {
		return err
	}
	content, err := s.openChunks(ctx, name, old, objectOptions{unverified: true})
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	w, err := s.newObjectWriter(ctx, info.ObjectMeta, content)
	if err != nil {
		return err
	}
	w.total = int64(info.Size)
	w.replaces = func(now objectVersion) error {
		switch {
		case meta.Name == name && !now.has(info.NUID):
			return fmt.Errorf("%w: replaced while it was changed", ErrConflict)
		case meta.Name != name && now.there():
			return jetstream.ErrObjectAlreadyExists
		}
		return nil
	}
	now, err := s.client.objectVersion(ctx, s.bucket, meta.Name)
	if err == nil {
		err = w.replaces(now) // before all is sent
	}
	if err == nil {
		_, err = w.put(ctx, content)
	}
	if err != nil || meta.Name == name {
		return err
	}
	if now, err = s.client.objectVersion(ctx, s.bucket, name); err != nil || !now.has(info.NUID) {
		return err
	}
	return s.remove(ctx, op, now)
}

// described returns a copy of the object's metadata with what a user may change.
func described(old objectVersion, meta jetstream.ObjectMeta) (*jetstream.ObjectInfo, error) {
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

// AddLink makes name stand for the object that info describes, in this or another bucket. It returns
// ErrAlreadyExists when name is that of an object that is not a link.
func (s *ObjectStore) AddLink(ctx context.Context, name string, info *jetstream.ObjectInfo) (*jetstream.ObjectInfo, error) {
	const op = "add link"
	if err := s.check(ctx, op, name); err != nil {
		return nil, err
	}
	switch {
	case info == nil, info.Name == "":
		return nil, s.wrap(op, name, jetstream.ErrObjectRequired)
	case info.Deleted:
		return nil, s.wrap(op, name, jetstream.ErrNoLinkToDeleted)
	case objectVersion{info: info}.isLink():
		return nil, s.wrap(op, name, jetstream.ErrNoLinkToLink)
	}
	return s.addLink(ctx, op, name, &jetstream.ObjectLink{Bucket: info.Bucket, Name: info.Name})
}

// AddBucketLink makes name stand for a bucket. Such a link can be listed, but not read.
func (s *ObjectStore) AddBucketLink(ctx context.Context, name string, bucket *ObjectStore) (*jetstream.ObjectInfo, error) {
	const op = "add link"
	if err := s.check(ctx, op, name); err != nil {
		return nil, err
	}
	if bucket == nil {
		return nil, fail(op, path(s.bucket, name), ErrInvalidArgument, "%w", jetstream.ErrBucketRequired)
	}
	return s.addLink(ctx, op, name, &jetstream.ObjectLink{Bucket: bucket.bucket})
}

func (s *ObjectStore) addLink(ctx context.Context, op, name string, link *jetstream.ObjectLink) (*jetstream.ObjectInfo, error) {
	_, info, err := s.changeObject(ctx, op, name, func(old objectVersion) (*jetstream.ObjectInfo, error) {
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
