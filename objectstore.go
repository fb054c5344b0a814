package nats

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// ObjectStore is a bucket of objects of any size: upstream's jetstream.ObjectStore, with the errors
// of this package, downloads of its own and a List to range over. It is safe for concurrent use.
type ObjectStore struct {
	jetstream.ObjectStore
	client *Client
	bucket string
	limit  atomic.Int64 // of the bucket, for the size of a message; 0 before it is asked for
}

func (s *ObjectStore) wrap(op, name string, err error) error {
	return jsapi.Wrap(op, path(s.bucket, name), err)
}

// Upstream returns the bucket as code takes it that knows jetstream.ObjectStore: with upstream's signatures, and with the
// guarantees and errors of this package. The field ObjectStore is upstream's own.
func (s *ObjectStore) Upstream() jetstream.ObjectStore { return upstreamObjects{s} }

// Put stores what r yields under meta.Name, in the place of an object of that name, which is read as
// before until the new one is there as a whole. When it fails, nothing is left of it, and what was there
// stays, but in a full bucket: an object that was larger than what r yields, which has to be seekable, is removed first
// when the bucket has no room for both. When ctx ends, or the connection is lost, in the moment in which the new version takes the place of
// the old one, the error does not tell which of them it is; it is one of them, as a whole.
//
// It survives restarts and elections for as long as ctx allows; without a deadline in ctx,
// Config.RequestTimeout applies to every chunk and not to the whole. The chunks have 256 KiB unless
// meta.Opts says otherwise, or the server or the bucket takes no messages of that size, and 8 of them are in memory.
// R is read beside the call, which ends with ctx also when r yields nothing; a Read that does not return keeps its
// goroutine. Of two writers at a time the later one wins.
// The errors are ErrBucketNotFound, ErrStreamFull, ErrTimeout, ErrConnectionLost, ErrNotConnected, the
// source's own, ErrObjectCorrupt when the chunks vanished during the upload, and ErrConflict when another
// writer may have replaced the object already.
func (s *ObjectStore) Put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	set, source := objectOptionsOf(opts), positionOf(r)
	for removed := 0; ; removed++ {
		info, err := s.put(ctx, meta, r, set)
		if err == nil {
			return info, nil
		}
		if !errors.Is(err, ErrStreamFull) || !s.makeRoom(ctx, meta.Name, source, removed) {
			return nil, objectError(opPutObject, s.bucket, meta.Name, err)
		}
	}
}

// PutBytes is Put of a byte slice, which is not kept.
func (s *ObjectStore) PutBytes(ctx context.Context, name string, data []byte, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	return s.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(data), opts...)
}

// PutString is Put of a string.
func (s *ObjectStore) PutString(ctx context.Context, name, data string, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	return s.Put(ctx, jetstream.ObjectMeta{Name: name}, strings.NewReader(data), opts...)
}

// Seal makes the bucket read-only for good.
func (s *ObjectStore) Seal(ctx context.Context) error {
	ctx, cancel, err := s.client.bucketCall(ctx, "seal", s.bucket)
	if err != nil {
		return err
	}
	defer cancel()
	return s.wrap("seal", "", s.ObjectStore.Seal(ctx))
}

// Status asks the server for the bucket's configuration and size.
func (s *ObjectStore) Status(ctx context.Context) (jetstream.ObjectStoreStatus, error) {
	ctx, cancel, err := s.client.bucketCall(ctx, "status of", s.bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	status, err := s.ObjectStore.Status(ctx)
	return status, s.wrap("status of", "", fault.Because(ctx, err))
}

// List returns the objects in the bucket. An empty bucket is an empty sequence and no error. Of an object whose
// metadata another client wrote in a way that this one cannot read, it has the name and what else can be read:
// GetInfo and Get call such an object ErrObjectCorrupt. Without a deadline in ctx, Config.RequestTimeout bounds
// each pause and not the whole.
func (s *ObjectStore) List(ctx context.Context, opts ...jetstream.ListObjectsOpt) (iter.Seq[*jetstream.ObjectInfo], error) {
	const op = "list objects of"
	if ctx == nil {
		return nil, errNilContext(op, s.bucket)
	}
	var objects []*jetstream.ObjectInfo
	err := s.versions(ctx, func(v objectVersion, _ []byte) {
		if v.there() || len(opts) > 0 { // upstream's only option shows the deleted ones
			objects = append(objects, v.info)
		}
	})
	if err != nil {
		return nil, objectError(op, s.bucket, "", err)
	}
	return slices.Values(objects), nil
}
