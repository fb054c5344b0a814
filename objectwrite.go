package nats

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	objectMetaFormat = "$O.%s.M.%s"
	// objectChunkSize is how large chunks are unless the uploader chooses otherwise, or the server
	// takes no messages of that size.
	objectChunkSize = 128 << 10
	// objectWindow is how many chunks may wait for their acknowledgement.
	objectWindow = 16
	// objectCleanup bounds the removal of chunks that no object needs.
	objectCleanup = 5 * time.Second
)

// objectWriter puts one object. Upstream's Put makes a JetStream context of its own for every
// object, whose goroutine may stay for ever; stores the metadata before all chunks are known to be
// stored; and leaves the chunks behind when its context is cancelled.
type objectWriter struct {
	store    *ObjectStore
	subject  string // of the chunks
	unacked  []jetstream.PubAckFuture
	uploaded jetstream.ObjectInfo
}

// put stores what r yields as chunks, then the metadata that makes them the object, and at last
// removes the chunks of the object that was replaced.
func (s *ObjectStore) put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader) (*jetstream.ObjectInfo, error) {
	switch {
	case ctx == nil:
		return nil, errNilContext("put object", path(s.bucket, meta.Name))
	case meta.Name == "":
		return nil, jetstream.ErrBadObjectMeta
	case meta.Opts != nil && meta.Opts.Link != nil:
		return nil, jetstream.ErrLinkNotAllowed
	case r == nil:
		return nil, fmt.Errorf("%w: the reader is nil", ErrInvalidArgument)
	}
	var opts jetstream.ObjectMetaOptions // a copy: the caller's stays as it is
	if meta.Opts != nil {
		opts = *meta.Opts
	}
	if opts.ChunkSize == 0 {
		opts.ChunkSize = uint32(min(objectChunkSize, max(s.client.nc.MaxPayload(), 1)))
	}
	if int64(opts.ChunkSize) > s.client.nc.MaxPayload() {
		return nil, fmt.Errorf("%w: chunks of %d bytes", natsgo.ErrMaxPayload, opts.ChunkSize)
	}
	meta.Opts = &opts

	old, err := s.ObjectStore.GetInfo(ctx, meta.Name, jetstream.GetObjectInfoShowDeleted())
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, err
	}
	w := &objectWriter{store: s, uploaded: jetstream.ObjectInfo{ObjectMeta: meta, Bucket: s.bucket, NUID: rand.Text()}}
	w.subject = fmt.Sprintf(objectChunkFormat, s.bucket, w.uploaded.NUID)
	if err := w.upload(ctx, r); err != nil {
		w.abandon(ctx)
		return nil, err
	}
	if old != nil && !old.Deleted && old.Chunks > 0 {
		w.purge(ctx, fmt.Sprintf(objectChunkFormat, s.bucket, old.NUID))
	}
	return &w.uploaded, nil
}

func (w *objectWriter) upload(ctx context.Context, r io.Reader) error {
	size := int(w.uploaded.Opts.ChunkSize)
	digest := sha256.New()
	buffers := make([][]byte, objectWindow+1) // a chunk may be sent again until it is acknowledged
	for i := 0; ; i++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		buffer := &buffers[i%len(buffers)]
		if *buffer == nil {
			*buffer = make([]byte, size)
		}
		n, err := io.ReadFull(r, *buffer)
		if n > 0 {
			_, _ = digest.Write((*buffer)[:n])
			if err := w.send(ctx, (*buffer)[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the source failed: %w", err)
		}
	}
	for len(w.unacked) > 0 {
		if err := w.acked(ctx); err != nil {
			return err
		}
	}
	w.uploaded.Digest = jetstream.GetObjectDigestValue(digest)
	return w.publishMeta(ctx)
}

// send publishes a chunk, after the oldest one is acknowledged when too many are not.
func (w *objectWriter) send(ctx context.Context, chunk []byte) error {
	if len(w.unacked) == objectWindow {
		if err := w.acked(ctx); err != nil {
			return err
		}
	}
	future, err := w.store.client.js.PublishAsync(w.subject, chunk)
	if err != nil {
		return err
	}
	w.unacked = append(w.unacked, future)
	w.uploaded.Chunks++
	w.uploaded.Size += uint64(len(chunk))
	return nil
}

// acked waits for the oldest chunk.
func (w *objectWriter) acked(ctx context.Context) error {
	oldest := w.unacked[0]
	select {
	case <-oldest.Ok():
		w.unacked = w.unacked[1:]
		return nil
	case err := <-oldest.Err():
		w.unacked = w.unacked[1:]
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// abandon removes what was uploaded, without keeping the caller waiting; Shutdown waits for it.
func (w *objectWriter) abandon(ctx context.Context) {
	c := w.store.client
	if c.beginWork() != nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	go func() {
		defer c.work.Done()
		// What is still on its way would miss the purge. Every future resolves within
		// Config.RequestTimeout.
		for len(w.unacked) > 0 {
			_ = w.acked(ctx)
		}
		w.purge(ctx, w.subject)
	}()
}

func (w *objectWriter) publishMeta(ctx context.Context) error {
	body, err := json.Marshal(&w.uploaded)
	if err != nil {
		return err
	}
	m := natsgo.NewMsg(fmt.Sprintf(objectMetaFormat, w.store.bucket, base64.URLEncoding.EncodeToString([]byte(w.uploaded.Name))))
	m.Header.Set(natsgo.MsgRollup, natsgo.MsgRollupSubject)
	m.Data = body
	if _, err := w.store.client.js.PublishMsg(ctx, m); err != nil {
		return err
	}
	w.uploaded.ModTime = time.Now().UTC() // about the server's
	return nil
}

// purge removes chunks, also when ctx has ended. What it fails to remove only takes up room.
func (w *objectWriter) purge(ctx context.Context, chunks string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), objectCleanup)
	defer cancel()
	stream, err := w.store.client.js.Stream(ctx, objectStreamPrefix+w.store.bucket)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(chunks))
	}
	if err != nil {
		w.store.client.log.Warn("object chunks are left behind", "bucket", w.store.bucket, "subject", chunks, "error", err)
	}
}
