package object

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

const (
	// chunkSize is how large chunks are unless the uploader chooses otherwise, or the server
	// takes no messages of that size. With upstream's 128 KiB an upload takes a sixth longer, with
	// 512 KiB a tenth less, but then other messages wait behind a chunk for longer.
	chunkSize = 256 << 10
	// headerRoom is what the message ID of a chunk may take of the server's max_payload.
	headerRoom = 64
	// mostFlying is how many chunks may wait for their acknowledgement, on a link that is fast enough.
	// More brings no speed.
	mostFlying = 8
	// cleanup bounds the removal of chunks that no object needs while the caller waits, beyond its context, too.
	cleanup = 400 * time.Millisecond
	// landing bounds how long the chunks of an upload that failed may be on their way.
	landing = time.Second
	// aftermath bounds, beside the caller, the removal of the chunks of an upload that failed and
	// finding out what became of one whose outcome is not known.
	aftermath = 30 * time.Second
	// unwatched is how long an upload may last before it looks whether its chunks are still there:
	// a Sweep, which leaves alone what is younger, may have taken a slow one for an orphan.
	unwatched = time.Second
)

const opPut = "put object"

// writer puts one object. Upstream's Put sends a chunk again from a buffer that holds the next one
// already; stores the metadata before all chunks are known to be stored; and leaves the chunks behind
// when its context is cancelled.
type writer struct {
	store    *Store
	opts     Options
	uploaded jetstream.ObjectInfo
	subject  string // of the chunks
	total    int64  // bytes of the source; -1 when it does not tell
	begun    time.Time
	replaces func(version) error // refuses what is not to be replaced, when set

	pace   pace
	flying []chunk         // in the order of the object
	free   [][]byte        // buffers of chunks that are stored
	last   uint64          // sequence of the last chunk that is stored
	done   int64           // bytes that are stored
	doubt  bool            // a chunk was sent more than once
	chunks context.Context // of what is in flight
	giveUp context.CancelFunc
}

// chunk is a chunk in flight. Its data must not change until it is acknowledged.
type chunk struct {
	future   *publish.Future
	data     []byte
	patience time.Duration
}

// Put stores what r yields, in the place of an object of that name.
func (s *Store) Put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader, opts Options) (*jetstream.ObjectInfo, error) {
	source := positionOf(r)
	for removed := 0; ; removed++ {
		info, err := s.put(ctx, meta, r, opts)
		if err == nil {
			return info, nil
		}
		if errors.Is(err, fault.ErrPayloadTooLarge) {
			s.limit.Store(0) // the bucket's may be lower now
		}
		if !errors.Is(err, fault.ErrStreamFull) || !s.makeRoom(ctx, meta.Name, source, removed) {
			return nil, named(opPut, s.bucket, meta.Name, err)
		}
	}
}

// put stores what r yields as chunks, then the metadata that makes them the object, and at last
// removes the chunks of the object that was replaced.
func (s *Store) put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader, opts Options) (*jetstream.ObjectInfo, error) {
	w, err := s.newWriter(ctx, meta)
	if err != nil {
		return nil, err
	}
	w.opts, w.total = opts, sizeOf(r)
	return w.put(ctx, r)
}

func (w *writer) put(ctx context.Context, r io.Reader) (*jetstream.ObjectInfo, error) {
	ctx, done, err := w.store.life.Attend(ctx, w.store.conn.IsUp)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := w.uploadUntilClose(ctx, r); err != nil {
		w.abandon(ctx, err)
		return nil, err
	}
	if err := w.commit(ctx); err != nil {
		return nil, err
	}
	w.giveUp() // nothing is in flight
	for _, buffer := range w.free {
		if cap(buffer) == chunkSize {
			w.store.buffers.Put((*[chunkSize]byte)(buffer[:chunkSize]))
		}
	}
	w.opts.report(w.done, w.done)
	return &w.uploaded, nil
}

// newWriter decides on the size of the chunks.
func (s *Store) newWriter(ctx context.Context, meta jetstream.ObjectMeta) (*writer, error) {
	var opts jetstream.ObjectMetaOptions // a copy: the caller's stays as it is
	if meta.Opts != nil {
		opts = *meta.Opts
	}
	most, what, err := s.largestMessage(ctx)
	if err != nil {
		return nil, err
	}
	if opts.ChunkSize == 0 {
		opts.ChunkSize = chunkSize
	} else if int64(opts.ChunkSize) > most {
		return nil, fmt.Errorf("chunks of %d bytes, and the %s is %d: %w", opts.ChunkSize, what, most, natsgo.ErrMaxPayload)
	}
	opts.ChunkSize = uint32(min(int64(opts.ChunkSize), max(most-headerRoom, 1)))
	meta.Opts = &opts
	w := &writer{
		store:    s,
		uploaded: jetstream.ObjectInfo{ObjectMeta: meta, Bucket: s.bucket, NUID: rand.Text()},
		begun:    time.Now(),
		pace:     pace{window: chunksAtFirst, patience: chunkPatienceMin},
	}
	w.subject = chunkSubject(s.bucket, w.uploaded.NUID)
	w.chunks, w.giveUp = outliving(ctx)
	return w, nil
}

// largestMessage returns how large a message may be, and whose limit that is. The bucket's is asked for once.
func (s *Store) largestMessage(ctx context.Context) (int64, string, error) {
	limit := s.limit.Load()
	if limit == 0 {
		limit = math.MaxInt64
		switch bucket, err := s.state(ctx); {
		case errors.Is(err, natsgo.ErrPermissionViolation): // who may not ask finds out by storing
		case err != nil:
			return 0, "", err
		case bucket.Config.MaxMsgSize > 0:
			limit = int64(bucket.Config.MaxMsgSize)
		}
		s.limit.Store(limit)
	}
	if server := s.conn.MaxPayload(); server <= limit {
		return server, "server's max_payload", nil
	}
	return limit, "bucket's max_msg_size", nil
}

// uploadUntilClose is upload, which Close ends: it waits only for what the chunks are then removed in, or for the commit.
func (w *writer) uploadUntilClose(ctx context.Context, r io.Reader) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	forget, err := w.store.life.OnClose(func() { end(fault.ErrClosed) })
	if err != nil {
		return err
	}
	defer forget()
	defer context.AfterFunc(w.store.life.Context(), func() { end(fault.ErrClosed) })() // by no Close
	return w.upload(ctx, r)
}

// upload stores the chunks and looks up, meanwhile, what the object is going to replace.
func (w *writer) upload(ctx context.Context, r io.Reader) error {
	size := int(w.uploaded.Opts.ChunkSize)
	if w.total >= 0 {
		size = int(min(int64(size), w.total+1)) // one more, to meet the end
	}
	source := newSource(ctx, r, w.store.timeout)
	defer source.close()
	digest := sha256.New()
	for {
		if err := fault.Ended(ctx); err != nil {
			return err
		}
		buffer, err := w.buffer(ctx, size)
		if err != nil {
			return err
		}
		n, err := source.read(ctx, buffer)
		if n > 0 {
			if err := w.send(ctx, buffer[:n]); err != nil {
				return err
			}
			_, _ = digest.Write(buffer[:n]) // while the chunk is on its way
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if n == 0 {
				w.free = append(w.free, buffer)
			}
			break
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return err
		default:
			return fmt.Errorf("the source failed: %w", err)
		}
	}
	w.uploaded.Digest = jetstream.GetObjectDigestValue(digest)
	return nil
}

// buffer returns the buffer of a chunk that is acknowledged, and waits for one when too many are not.
func (w *writer) buffer(ctx context.Context, size int) ([]byte, error) {
	for len(w.flying) > 0 {
		if _, _, there := w.flying[0].future.Result(false); !there && len(w.flying) < w.pace.window {
			break
		}
		if err := w.acked(ctx); err != nil {
			return nil, err
		}
	}
	last := len(w.free) - 1
	if last < 0 && size == chunkSize {
		if used, _ := w.store.buffers.Get().(*[chunkSize]byte); used != nil {
			return used[:], nil
		}
	}
	if last < 0 {
		return make([]byte, size), nil
	}
	buffer := w.free[last]
	w.free = w.free[:last]
	return buffer, nil
}

// send publishes a chunk.
func (w *writer) send(ctx context.Context, data []byte) error {
	future, err := w.publish(ctx, data)
	if err != nil {
		return err
	}
	w.flying = append(w.flying, chunk{future, data, w.pace.patience})
	w.uploaded.Chunks++
	w.uploaded.Size += uint64(len(data))
	return nil
}

// publish sends a chunk under a message ID of its own, again and again until it is stored or ctx's
// deadline has passed. Cancelling ctx does not take it back: what is on its way is waited for, so that
// nothing comes after the chunks were purged.
func (w *writer) publish(ctx context.Context, data []byte) (*publish.Future, error) {
	return w.store.publisher.Start(ctx, opPut, &natsgo.Msg{Subject: w.subject, Data: data},
		publish.Flight{Context: w.chunks, Patience: w.pace.patience})
}

// acked waits for the oldest chunk. A chunk that had to be sent again may be stored behind its
// successors, and then those are stored anew.
func (w *writer) acked(ctx context.Context) error {
	oldest := w.flying[0]
	sequence, err := w.await(ctx, oldest)
	if err != nil {
		return err
	}
	if sequence < w.last {
		return w.reorder(ctx)
	}
	w.stored(sequence)
	return nil
}

// await waits for the acknowledgement of a chunk and returns its sequence.
func (w *writer) await(ctx context.Context, chunk chunk) (uint64, error) {
	select {
	case <-chunk.future.Settled():
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return 0, fault.Ended(ctx)
		}
		<-chunk.future.Settled() // it has the same deadline, and tells more
	}
	ack, err, _ := chunk.future.Result(false)
	if err != nil {
		return 0, err
	}
	w.doubt = w.pace.learn(chunk) || w.doubt
	return ack.Sequence, nil
}

// stored takes the oldest chunk off the list.
func (w *writer) stored(sequence uint64) {
	w.last = sequence
	data := w.flying[0].data
	w.done += int64(len(data))
	w.free = append(w.free, data[:cap(data)])
	w.flying = w.flying[1:]
	if w.done < w.total || w.total < 0 {
		w.opts.report(w.done, w.total)
	}
}

// reorder deletes the chunks in flight, which are stored in a wrong order, and stores them one by one.
func (w *writer) reorder(ctx context.Context) error {
	for _, chunk := range w.flying {
		sequence, err := w.await(ctx, chunk)
		if err != nil {
			return err
		}
		// Never another's, should the number be that of another stream.
		found, err := w.store.api.Stored(ctx, StreamPrefix+w.store.bucket, wire.Get{Sequence: sequence, NextFor: w.subject})
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return err
		}
		if found.Sequence != sequence {
			continue
		}
		err = w.store.api.DeleteMessage(ctx, StreamPrefix+w.store.bucket, sequence)
		if err != nil && !isDeleted(err) {
			return err
		}
	}
	w.doubt = true
	for len(w.flying) > 0 {
		chunk := &w.flying[0]
		future, err := w.publish(ctx, chunk.data)
		if err != nil {
			return err // what is flying has a future, for abandon
		}
		chunk.future, chunk.patience = future, w.pace.patience
		sequence, err := w.await(ctx, *chunk)
		if err != nil {
			return err
		}
		w.stored(sequence)
	}
	return nil
}

// isDeleted tells whether a deletion failed because an earlier, unanswered one has succeeded.
func isDeleted(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.CodeSequenceNotFound || code == fault.CodeDeleteFailed
}
