package object

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
)

// readAhead is how many bytes are asked for at once, and so at most in memory; it makes at least 2 and at
// most 256 chunks.
const readAhead = 4 << 20

// readSmall is how large an object of one chunk may be to be asked for without a consumer: so that
// little is sent again over a link that is too slow for the answer.
const readSmall = 64 << 10

// heartbeat is how soon the server says that it has nothing to deliver. Only chunks that there
// are are asked for, so it says so only when some are missing.
const heartbeat = 100 * time.Millisecond

// readPause is how soon chunks that are not there yet are looked for again.
const readPause = 20 * time.Millisecond

// readPatience is how many heartbeats a replica has to catch up.
const readPatience = 10

const opRead = "read object"

// Reader implements jetstream.ObjectResult on the ordered reader.
type Reader struct {
	store  *Store
	target string // bucket/name, as the caller called it
	opts   Options
	info   *jetstream.ObjectInfo // where links led
	// partial tells that only a part of info could be read: the chunks are those that are stored.
	partial bool
	reader  *ordered.Reader // nil when the object is empty
	idle    time.Duration   // 0 when the context has a deadline
	timer   *time.Timer     // ends the reading when nothing comes for idle
	caller  context.Context
	ctx     context.Context // ends with the caller's, and with the reading
	cancel  context.CancelCauseFunc
	forget  func()
	hash    hash.Hash

	mu     sync.Mutex
	sole   []byte // the object's only chunk, received and not yet checked
	chunk  []byte // checked and not yet read
	fresh  bool   // the chunk's progress is not reported
	got    uint64
	chunks uint32
	behind int   // how often the server had nothing to deliver though all chunks are stored
	err    error // of the next Read, once set
}

// Read implements io.Reader. The last chunk is handed out only when the whole fits the digest.
func (o *Reader) Read(p []byte) (int, error) {
	n := 0
	err := o.take(len(p) == 0, func() {
		n = copy(p, o.chunk)
		o.chunk = o.chunk[n:]
	})
	return n, err
}

// next returns what is left of a chunk, or the next one.
func (o *Reader) next() (chunk []byte, err error) {
	err = o.take(false, func() { chunk, o.chunk = o.chunk, nil })
	return chunk, err
}

// take lets use have the chunk, which it fetches when none is there and one is wanted, and reports the
// progress afterwards.
func (o *Reader) take(nothing bool, use func()) error {
	o.mu.Lock()
	for len(o.chunk) == 0 && !nothing {
		if o.err == nil {
			o.err = o.fill()
		}
		if o.err != nil {
			break
		}
	}
	err := o.err
	if len(o.chunk) > 0 { // also beside the error that ends it
		err = nil
		use()
	}
	fresh, done := o.fresh, o.got
	o.fresh = false
	o.mu.Unlock()
	if fresh { // unlocked, for it may close the reader
		o.opts.report(int64(done), int64(o.size()))
	}
	return err
}

// fill fetches the next chunk and, with the last one, checks the whole.
func (o *Reader) fill() error {
	if o.chunks == o.info.Chunks {
		if o.size() > o.got { // with no chunks at all
			return o.fail(o.verify())
		}
		o.fresh = o.info.Chunks == 0
		o.release()
		return io.EOF
	}
	if o.idle > 0 {
		if o.timer == nil { // one for all chunks
			o.timer = time.AfterFunc(o.idle, func() { o.cancel(context.DeadlineExceeded) })
		} else {
			o.timer.Reset(o.idle)
		}
		defer o.timer.Stop()
	}
	data := o.sole
	if data == nil {
		m, _, err := o.reader.Next(o.ctx)
		if err != nil {
			return o.fail(err)
		}
		data = m.Data
	}
	o.chunks++
	o.got += uint64(len(data))
	_, _ = o.hash.Write(data)
	if o.chunks == o.info.Chunks || o.got > o.size() {
		if err := o.verify(); err != nil {
			return o.fail(err)
		}
		o.release()
	}
	o.sole, o.chunk, o.fresh = nil, data, true
	return nil
}

// fail ends the transfer and returns what Read says.
func (o *Reader) fail(err error) error {
	cause := cmp.Or(fault.Ended(o.caller), context.Cause(o.ctx))
	o.release()
	switch {
	case cause != nil && !errors.Is(cause, context.DeadlineExceeded):
		err = cause
	case cause != nil && errors.Is(err, context.Canceled): // by the timer
		err = cause
	case errors.Is(err, fault.ErrNotConnected): // all the time
		return &fault.Error{Op: opRead, Target: o.target, Kind: fault.ErrNotConnected, Cause: o.store.conn.LastError()}
	case errors.Is(err, jetstream.ErrStreamNotFound):
		err = fault.Joined{jetstream.ErrBucketNotFound, err}
	}
	return fault.Wrap(opRead, o.target, err)
}

// size returns how large the object is, by its metadata if they say so.
func (o *Reader) size() uint64 {
	if o.partial {
		return o.got
	}
	return o.info.Size
}

func (o *Reader) verify() error {
	want, err := digestOf(o.info.Digest)
	switch {
	case o.got != o.size():
		return fmt.Errorf("%w: %d bytes instead of %d", fault.ErrObjectCorrupt, o.got, o.info.Size)
	case err != nil && o.opts.Unverified:
		return nil
	case err != nil:
		return fmt.Errorf("%w: its digest is of no known kind, and WithUnverifiedObject reads it all the same: %w", fault.ErrObjectCorrupt, err)
	case string(o.hash.Sum(nil)) != string(want):
		return jetstream.ErrDigestMismatch
	}
	return nil
}

// digestOf decodes a digest, which is one of SHA-256.
func digestOf(text string) ([]byte, error) {
	digest, err := jetstream.DecodeObjectDigest(text)
	if err == nil && (len(digest) != sha256.Size || !strings.EqualFold(text[:len("SHA-256=")], "SHA-256=")) {
		err = jetstream.ErrInvalidDigestFormat
	}
	return digest, err
}

// missing is asked when the server has nothing to deliver though chunks are outstanding. It returns
// why they will not come, and nil when they may.
func (o *Reader) missing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime) // the heartbeats go on, and it is asked again
	defer cancel()
	version, err := o.store.version(ctx, o.info.Bucket, o.info.Name)
	if err != nil {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		return nil // it is asked again
	}
	info, err := version.live()
	switch {
	case err != nil:
		return fmt.Errorf("deleted while it was read: %w", err)
	case info.NUID != o.info.NUID:
		return fmt.Errorf("%w: replaced while it was read", fault.ErrConflict)
	}
	stored, err := o.store.storedChunks(ctx, o.info.Bucket, o.info.NUID)
	if err != nil {
		return nil // it is asked again
	}
	if stored == uint64(o.info.Chunks) { // the consumer's replica is behind; another consumer may not be
		if o.behind++; o.behind%readPatience == 0 {
			o.reader.Renew()
		}
		return nil
	}
	return fmt.Errorf("%w: %d of its %d chunks are stored", fault.ErrObjectCorrupt, stored, o.info.Chunks)
}

// release ends the transfer.
func (o *Reader) release() {
	o.cancel(nil)
	if o.forget != nil {
		o.forget()
	}
	if o.reader != nil {
		o.reader.Close()
	}
}

// end lets a Read that waits and all later ones return err.
func (o *Reader) end(err error) {
	o.cancel(err)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chunk = nil
	if o.err == nil {
		o.err = fault.Wrap(opRead, o.target, err)
	}
	o.release()
}

// Close implements io.Closer. It ends a Read that waits.
func (o *Reader) Close() error {
	o.end(os.ErrClosed)
	return nil
}

// Info implements jetstream.ObjectResult.
func (o *Reader) Info() (*jetstream.ObjectInfo, error) { return o.info, nil }

// Error implements jetstream.ObjectResult: it returns the error that ended the reading, but for
// its natural end.
func (o *Reader) Error() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == io.EOF || errors.Is(o.err, os.ErrClosed) { //nolint:errorlint // the very value that Read returns
		return nil
	}
	return o.err
}
