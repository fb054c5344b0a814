package nats

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The layout of an object store (ADR-20): the stream of a bucket and the subject of an object's
// chunks.
const (
	objectStreamPrefix = "OBJ_"
	objectChunkFormat  = "$O.%s.C.%s"
)

// objectBatch is how many chunks, of 128 KiB unless the uploader chose otherwise, are asked for at
// once.
const objectBatch = 32

// objectHeartbeat is how soon the server says that it has nothing to deliver. Only chunks that there
// are are asked for, so it says so only when some are missing.
const objectHeartbeat = 200 * time.Millisecond

const opReadObject = "read object"

// objectReader implements jetstream.ObjectResult on the ordered reader.
type objectReader struct {
	client *Client
	target string                // bucket/name, as the caller called it
	store  jetstream.ObjectStore // that holds the object, where links led
	info   *jetstream.ObjectInfo
	reader *orderedReader // nil when the object is empty
	idle   time.Duration  // 0 when the context has a deadline
	ctx    context.Context
	cancel context.CancelCauseFunc
	forget func()
	hash   hash.Hash

	mu     sync.Mutex
	chunk  []byte // received and not yet read
	got    uint64
	chunks uint32
	err    error // of the next Read, once set
}

// open follows links and opens the object's chunks.
func (s *ObjectStore) open(ctx context.Context, name string, opts []jetstream.GetObjectOpt) (*objectReader, error) {
	if ctx == nil {
		return nil, errNilContext("get object", path(s.bucket, name))
	}
	opening, cancel := s.client.deadline(ctx)
	defer cancel()
	store, info, err := s.resolve(opening, name, opts)
	for err == nil {
		var o *objectReader
		if o, err = s.openChunks(ctx, name, store, info); err == nil {
			return o, nil
		}
		if !errors.Is(err, ErrObjectCorrupt) {
			break
		}
		// A faster writer may have replaced the object in between.
		old := info.NUID
		var again error
		if store, info, again = s.resolve(opening, name, opts); again != nil {
			return nil, again
		}
		if info.NUID == old {
			break
		}
		err = nil
	}
	return nil, err
}

// openChunks begins the transfer of the object that info describes.
func (s *ObjectStore) openChunks(ctx context.Context, name string, store jetstream.ObjectStore, info *jetstream.ObjectInfo) (*objectReader, error) {
	c := s.client
	o := &objectReader{client: c, target: path(s.bucket, name), store: store, info: info, hash: sha256.New()}
	if _, ok := ctx.Deadline(); !ok {
		o.idle = c.cfg.RequestTimeout
	}
	o.ctx, o.cancel = context.WithCancelCause(ctx)
	if info.Chunks > 0 {
		o.reader = c.newOrderedReader(objectStreamPrefix+info.Bucket, jetstream.ConsumerConfig{
			FilterSubject: fmt.Sprintf(objectChunkFormat, info.Bucket, info.NUID),
		}, objectBatch)
		o.reader.left = int64(info.Chunks)
		o.reader.heartbeat, o.reader.idle = objectHeartbeat, o.missing
		if err := o.reader.start(ctx); err != nil {
			o.cancel(err)
			return nil, err
		}
		if stored := o.reader.pending; stored != uint64(info.Chunks) {
			o.reader.close()
			err := fmt.Errorf("%w: %d of its %d chunks are stored", ErrObjectCorrupt, stored, info.Chunks)
			o.cancel(err)
			return nil, err
		}
	}
	forget, err := c.onClose(func() { o.end(ErrClosed) })
	if err != nil {
		o.end(err)
		return nil, err
	}
	// A reader that nobody reads ends with its context, too.
	stop := context.AfterFunc(ctx, func() { o.end(context.Cause(ctx)) })
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget = func() {
		stop()
		forget()
	}
	if o.err != nil { // ended already
		o.forget()
	}
	return o, nil
}

// linkDepth bounds a chain of links, which may be a circle.
const linkDepth = 8

// resolve returns the information of the object that name leads to and the bucket that holds it.
func (s *ObjectStore) resolve(ctx context.Context, name string, opts []jetstream.GetObjectOpt) (jetstream.ObjectStore, *jetstream.ObjectInfo, error) {
	store, bucket := s.ObjectStore, s.bucket
	var infoOpts []jetstream.GetObjectInfoOpt
	if len(opts) > 0 { // upstream's only option
		infoOpts = append(infoOpts, jetstream.GetObjectInfoShowDeleted())
	}
	for range linkDepth {
		info, err := store.GetInfo(ctx, name, infoOpts...)
		if err != nil {
			return nil, nil, err
		}
		if info.Opts == nil || info.Opts.Link == nil {
			if info.NUID == "" {
				return nil, nil, fmt.Errorf("%w: %w", ErrObjectCorrupt, jetstream.ErrBadObjectMeta)
			}
			info.Bucket = bucket // the one that was asked
			return store, info, nil
		}
		link := info.Opts.Link
		if link.Name == "" {
			return nil, nil, jetstream.ErrCantGetBucket
		}
		if link.Bucket != bucket {
			if store, err = s.client.js.ObjectStore(ctx, link.Bucket); err != nil {
				return nil, nil, err
			}
		}
		bucket, name = link.Bucket, link.Name
	}
	return nil, nil, fmt.Errorf("more than %d links in a row", linkDepth)
}

// Read implements io.Reader. The last chunk is handed out only when the whole fits the digest.
func (o *objectReader) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(p) == 0 {
		return 0, o.err
	}
	for len(o.chunk) == 0 {
		if o.err == nil {
			o.err = o.fill()
		}
		if o.err != nil {
			return 0, o.err
		}
	}
	n := copy(p, o.chunk)
	o.chunk = o.chunk[n:]
	return n, nil
}

// fill fetches the next chunk and, with the last one, checks the whole.
func (o *objectReader) fill() error {
	if o.chunks == o.info.Chunks {
		if o.info.Size > o.got { // with no chunks at all
			return o.fail(o.verify())
		}
		o.release()
		return io.EOF
	}
	ctx := o.ctx
	if o.idle > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.idle)
		defer cancel()
	}
	m, _, err := o.reader.next(ctx)
	if err != nil {
		return o.fail(err)
	}
	o.chunks++
	o.got += uint64(len(m.Data))
	_, _ = o.hash.Write(m.Data)
	if o.chunks == o.info.Chunks || o.got > o.info.Size {
		if err := o.verify(); err != nil {
			return o.fail(err)
		}
		o.release()
	}
	o.chunk = m.Data
	return nil
}

// fail ends the transfer and returns what Read says.
func (o *objectReader) fail(err error) error {
	cause := context.Cause(o.ctx)
	o.release()
	switch {
	case cause != nil && !errors.Is(cause, context.DeadlineExceeded):
		err = cause
	case errors.Is(err, ErrNotConnected): // all the time
		return &opError{op: opReadObject, target: o.target, kind: ErrNotConnected, cause: o.client.nc.LastError()}
	case errors.Is(err, jetstream.ErrStreamNotFound):
		err = joined{jetstream.ErrBucketNotFound, err}
	}
	return wrap(opReadObject, o.target, err)
}

func (o *objectReader) verify() error {
	want, err := jetstream.DecodeObjectDigest(o.info.Digest)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrObjectCorrupt, err)
	case o.got != o.info.Size:
		return fmt.Errorf("%w: %d bytes instead of %d", ErrObjectCorrupt, o.got, o.info.Size)
	case string(o.hash.Sum(nil)) != string(want):
		return jetstream.ErrDigestMismatch
	}
	return nil
}

// missing is asked when the server has nothing to deliver though chunks are outstanding. It returns
// why they will not come, and nil when they may.
func (o *objectReader) missing(ctx context.Context) error {
	info, err := o.store.GetInfo(ctx, o.info.Name)
	switch {
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return fmt.Errorf("deleted while it was read: %w", err)
	case err != nil:
		return nil //nolint:nilerr // it is asked again
	case info.NUID != o.info.NUID:
		return fmt.Errorf("%w: replaced while it was read", ErrConflict)
	}
	consumer, err := o.client.js.Consumer(ctx, o.reader.stream, o.reader.name)
	if err != nil {
		return nil //nolint:nilerr // it is asked again
	}
	if state := consumer.CachedInfo(); state.NumPending > 0 || state.Delivered.Consumer != o.reader.delivered {
		return nil
	}
	return fmt.Errorf("%w: %d of its %d chunks are stored", ErrObjectCorrupt, o.chunks, o.info.Chunks)
}

// release ends the transfer.
func (o *objectReader) release() {
	o.cancel(nil)
	if o.forget != nil {
		o.forget()
	}
	if o.reader != nil {
		o.reader.close()
	}
}

// end lets a Read that waits and all later ones return err.
func (o *objectReader) end(err error) {
	o.cancel(err)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chunk = nil
	if o.err == nil {
		o.err = wrap(opReadObject, o.target, err)
	}
	o.release()
}

// Close implements io.Closer. It ends a Read that waits.
func (o *objectReader) Close() error {
	o.end(os.ErrClosed)
	return nil
}

// Info implements jetstream.ObjectResult.
func (o *objectReader) Info() (*jetstream.ObjectInfo, error) { return o.info, nil }

// Error implements jetstream.ObjectResult: it returns the error that ended the reading, but for
// its natural end.
func (o *objectReader) Error() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == io.EOF || errors.Is(o.err, os.ErrClosed) { //nolint:errorlint // the very value that Read returns
		return nil
	}
	return o.err
}

// tempName returns a name beside file that no other download uses. It has nothing of file's own
// name, which may be as long as names can be.
func tempName(file string) string {
	return filepath.Join(filepath.Dir(file), ".nats-"+rand.Text()+".part")
}

// syncDir makes a rename in dir outlast a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
