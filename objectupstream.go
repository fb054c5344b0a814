package nats

import (
	"context"
	"io"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// upstreamObjects is a bucket with upstream's signatures.
type upstreamObjects struct{ *ObjectStore }

func (u upstreamObjects) Put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.Put(ctx, meta, r)
}

func (u upstreamObjects) PutBytes(ctx context.Context, name string, data []byte) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.PutBytes(ctx, name, data)
}

func (u upstreamObjects) PutString(ctx context.Context, name, data string) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.PutString(ctx, name, data)
}

func (u upstreamObjects) PutFile(ctx context.Context, file string) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.PutFile(ctx, file)
}

func (u upstreamObjects) Get(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (jetstream.ObjectResult, error) {
	return u.ObjectStore.Get(ctx, name, ownOptions(opts)...)
}

func (u upstreamObjects) GetBytes(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) ([]byte, error) {
	return u.ObjectStore.GetBytes(ctx, name, ownOptions(opts)...)
}

func (u upstreamObjects) GetString(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (string, error) {
	return u.ObjectStore.GetString(ctx, name, ownOptions(opts)...)
}

func (u upstreamObjects) GetFile(ctx context.Context, name, file string, opts ...jetstream.GetObjectOpt) error {
	return u.ObjectStore.GetFile(ctx, name, file, ownOptions(opts)...)
}

// ownOptions translates upstream's only option, which shows the deleted ones.
func ownOptions(opts []jetstream.GetObjectOpt) (own []ObjectOption) {
	for _, opt := range opts {
		if opt != nil {
			own = append(own, WithDeletedObject())
		}
	}
	return own
}

func (u upstreamObjects) AddBucketLink(ctx context.Context, name string, bucket jetstream.ObjectStore) (*jetstream.ObjectInfo, error) {
	if bucket == nil {
		return u.ObjectStore.AddBucketLink(ctx, name, nil)
	}
	status, err := bucket.Status(ctx)
	if err != nil {
		return nil, u.wrap("add link", name, err)
	}
	return u.ObjectStore.AddBucketLink(ctx, name, &ObjectStore{bucket: status.Bucket()})
}

func (u upstreamObjects) List(ctx context.Context, opts ...jetstream.ListObjectsOpt) ([]*jetstream.ObjectInfo, error) {
	objects, err := u.ObjectStore.List(ctx, opts...)
	if err != nil {
		return nil, err
	}
	all := slices.Collect(objects)
	if len(all) == 0 {
		return nil, jetstream.ErrNoObjectsFound
	}
	return all, nil
}
