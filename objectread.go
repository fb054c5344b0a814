package nats

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
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

// objectReader implements jetstream.ObjectResult on the ordered reader.
type objectReader struct {
	info   *jetstream.ObjectInfo
	reader *orderedReader // nil when the object is empty
	idle   time.Duration  // 0 when the context has a deadline
	ctx    context.Context
	cancel context.CancelFunc
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
	c := s.client
	bucket, info, err := s.resolve(ctx, name, opts)
	if err != nil {
		return nil, err
	}
	o := &objectReader{info: info, hash: sha256.New()}
	if _, ok := ctx.Deadline(); !ok {
		o.idle = c.cfg.RequestTimeout
	}
	o.ctx, o.cancel = context.WithCancel(ctx)
	if o.forget, err = c.onClose(o.cancel); err != nil {
		o.cancel()
		return nil, err
	}
	if info.Chunks == 0 {
		return o, nil
	}
	o.reader = c.newOrderedReader(objectStreamPrefix+bucket, jetstream.ConsumerConfig{
		FilterSubject: fmt.Sprintf(objectChunkFormat, bucket, info.NUID),
	}, objectBatch)
	if err := o.reader.start(ctx); err != nil {
		_ = o.Close()
		return nil, err
	}
	if o.reader.pending != uint64(info.Chunks) {
		_ = o.Close()
		return nil, fmt.Errorf("%w: %d of its %d chunks are stored; it may just have been replaced",
			ErrObjectCorrupt, o.reader.pending, info.Chunks)
	}
	return o, nil
}

// linkDepth bounds a chain of links, which may be a circle.
const linkDepth = 8

// resolve returns the information of the object that name leads to and its bucket.
func (s *ObjectStore) resolve(ctx context.Context, name string, opts []jetstream.GetObjectOpt) (string, *jetstream.ObjectInfo, error) {
	store, bucket := s.ObjectStore, s.bucket
	var infoOpts []jetstream.GetObjectInfoOpt
	if len(opts) > 0 { // upstream's only option
		infoOpts = append(infoOpts, jetstream.GetObjectInfoShowDeleted())
	}
	for range linkDepth {
		info, err := store.GetInfo(ctx, name, infoOpts...)
		if err != nil {
			return "", nil, err
		}
		if info.Opts == nil || info.Opts.Link == nil {
			return bucket, info, nil
		}
		link := info.Opts.Link
		if link.Name == "" {
			return "", nil, jetstream.ErrCantGetBucket
		}
		if link.Bucket != bucket {
			if store, err = s.client.js.ObjectStore(ctx, link.Bucket); err != nil {
				return "", nil, err
			}
		}
		bucket, name = link.Bucket, link.Name
	}
	return "", nil, fmt.Errorf("more than %d links in a row", linkDepth)
}

// Read implements io.Reader. It never returns io.EOF for bytes that fail the digest.
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

// fill fetches the next chunk, or checks the whole after the last one.
func (o *objectReader) fill() error {
	if o.chunks == o.info.Chunks {
		o.release()
		return o.verify()
	}
	ctx := o.ctx
	if o.idle > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.idle)
		defer cancel()
	}
	m, _, err := o.reader.next(ctx)
	if err != nil {
		o.release()
		return err
	}
	o.chunk = m.Data
	o.chunks++
	o.got += uint64(len(m.Data))
	_, _ = o.hash.Write(m.Data)
	return nil
}

func (o *objectReader) verify() error {
	want, err := jetstream.DecodeObjectDigest(o.info.Digest)
	switch {
	case err != nil:
		return err
	case o.got != o.info.Size:
		return fmt.Errorf("%w: %d bytes instead of %d", ErrObjectCorrupt, o.got, o.info.Size)
	case string(o.hash.Sum(nil)) != string(want):
		return jetstream.ErrDigestMismatch
	}
	return io.EOF
}

// release ends the transfer.
func (o *objectReader) release() {
	o.cancel()
	o.forget()
	if o.reader != nil {
		o.reader.close()
	}
}

// Close implements io.Closer. It ends a Read that waits.
func (o *objectReader) Close() error {
	o.cancel()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release()
	if o.err == nil {
		o.err = os.ErrClosed
	}
	return nil
}

// Info implements jetstream.ObjectResult.
func (o *objectReader) Info() (*jetstream.ObjectInfo, error) { return o.info, nil }

// Error implements jetstream.ObjectResult: it returns the error that ended the reading, but for
// its natural end.
func (o *objectReader) Error() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == io.EOF { //nolint:errorlint // the very value that Read returns
		return nil
	}
	return o.err
}

// tempName returns a name beside file that no other download uses.
func tempName(file string) string {
	return filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+"."+rand.Text()+".part")
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
