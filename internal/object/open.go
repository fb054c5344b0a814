package object

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// open follows links and opens the object's chunks.
func (s *Store) open(ctx context.Context, name string, opts Options) (*Reader, error) {
	opening, cancel := s.conn.Deadline(ctx)
	defer cancel()
	version, err := s.resolve(opening, name, opts)
	for err == nil {
		o, failed := s.openChunks(ctx, name, version, opts)
		if failed == nil {
			return o, nil
		}
		if !errors.Is(failed, fault.ErrObjectCorrupt) {
			return nil, failed
		}
		version, err = s.reopen(opening, name, version.info, opts, failed)
	}
	return nil, err
}

// reopen tells whether it is worth to try again after chunks were missing, and with which object: a faster
// writer may have replaced it, or the replica that was asked may not have them yet.
func (s *Store) reopen(ctx context.Context, name string, old *jetstream.ObjectInfo, opts Options, failed error) (version, error) {
	v, err := s.resolve(ctx, name, opts)
	if err != nil || v.info.NUID != old.NUID {
		return v, err
	}
	stored, err := s.storedChunks(ctx, v.info.Bucket, v.info.NUID)
	if err != nil || stored != uint64(v.info.Chunks) {
		return v, cmp.Or(err, failed)
	}
	pause.Sleep(ctx, readPause)
	return s.resolve(ctx, name, opts)
}

// openChunks begins the transfer of an object.
func (s *Store) openChunks(ctx context.Context, name string, v version, opts Options) (*Reader, error) {
	info := v.info
	o := &Reader{store: s, target: fault.Path(s.bucket, name), info: info, opts: opts, partial: v.unread != nil, hash: sha256.New(), caller: ctx}
	if _, ok := ctx.Deadline(); !ok {
		o.idle = s.timeout
	}
	o.ctx, o.cancel = context.WithCancelCause(ctx)
	if info.Chunks == 1 && info.Size <= readSmall {
		o.sole = s.soleChunk(ctx, info)
	}
	if info.Chunks > 0 && o.sole == nil {
		o.reader = ordered.New(s.api, ordered.Options{
			Stream: StreamPrefix + info.Bucket,
			Config: jetstream.ConsumerConfig{FilterSubject: chunkSubject(info.Bucket, info.NUID)},
			Batch:  batchOf(info), Total: int64(info.Chunks), Heartbeat: heartbeat, Idle: o.missing,
		})
		first, err := o.reader.Start(ctx)
		if stored := first.Pending; err == nil && stored != uint64(info.Chunks) {
			err = fmt.Errorf("%w: %d of its %d chunks are stored", fault.ErrObjectCorrupt, stored, info.Chunks)
		}
		if err != nil {
			o.reader.Close()
			o.cancel(err)
			return nil, err
		}
	}
	forget, err := s.life.OnClose(func() { o.end(fault.ErrClosed) })
	if err != nil {
		o.end(err)
		return nil, err
	}
	// A reader that nobody reads ends with its context, too.
	stop := context.AfterFunc(ctx, func() { o.end(fault.Ended(ctx)) })
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

// askTime is how long a question takes at most, where there is another way to go on.
const askTime = 500 * time.Millisecond

// lookTime is the same where nothing else can be done.
const lookTime = 10 * time.Second

// soleChunk asks for the chunk of an object that has one, which takes a consumer less than reading it
// as a stream. It returns nil when it does not get the chunk: then a consumer may.
func (s *Store) soleChunk(ctx context.Context, info *jetstream.ObjectInfo) []byte {
	question := &natsgo.Msg{
		Subject: s.api.Subject("DIRECT.GET." + StreamPrefix + info.Bucket + "." + chunkSubject(info.Bucket, info.NUID)),
	}
	_, trip := s.conn.Peer()
	m, err := s.conn.Exchange(ctx, question, askTime+trip)
	if err != nil {
		return nil
	}
	chunk, err := wire.ParseDirect(m)
	if err != nil || uint64(len(chunk.Data)) != info.Size {
		return nil
	}
	return chunk.Data
}

// linkDepth bounds a chain of links, which may be a circle.
const linkDepth = 8

// resolve returns the object that name leads to.
func (s *Store) resolve(ctx context.Context, name string, opts Options) (version, error) {
	bucket := s.bucket
	for range linkDepth {
		v, err := s.version(ctx, bucket, name)
		if err != nil {
			return v, err
		}
		switch {
		case v.info == nil, v.info.Deleted && !opts.Deleted:
			return v, jetstream.ErrObjectNotFound
		case v.isLink():
		case v.unread == nil:
			return v, nil
		case !opts.Unverified || v.info.NUID == "":
			return v, v.unread
		default:
			stored, err := s.storedChunks(ctx, bucket, v.info.NUID)
			v.info.Chunks = uint32(stored)
			return v, err
		}
		link := v.info.Opts.Link
		if link.Name == "" {
			return v, jetstream.ErrCantGetBucket
		}
		if err := subjects.CheckName(opGet, "bucket", link.Bucket); err != nil {
			return v, err
		}
		bucket, name = link.Bucket, link.Name
	}
	return version{}, fmt.Errorf("more than %d links in a row", linkDepth)
}

// batchOf returns how many chunks to ask for at once.
func batchOf(info *jetstream.ObjectInfo) int {
	chunk := max(info.Size/uint64(info.Chunks), 1)
	return int(min(max(readAhead/chunk, 2), 256))
}
