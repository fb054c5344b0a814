package nats

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/nats-io/nats.go/jetstream"
)

const opGetObject = "get object"

// Get opens an object for reading, or returns ErrObjectNotFound. Reading to the end checks the
// digest: ErrObjectCorrupt comes instead of the last bytes when they are not those that were stored,
// so even a reader of exactly the object's size is told. An object that is replaced while it is read
// is ErrConflict, one that is deleted ErrObjectNotFound.
// The reading ends with ctx, with Close, or with the client; without a deadline in ctx it fails
// with ErrTimeout when no chunk comes for Config.RequestTimeout, or with ErrNotConnected when there
// was no connection. Reading to the end closes it.
func (s *ObjectStore) Get(ctx context.Context, name string, opts ...ObjectOption) (jetstream.ObjectResult, error) {
	result, err := s.open(ctx, name, objectOptionsOf(opts))
	if err != nil {
		return nil, s.wrap(opGetObject, name, err)
	}
	return result, nil
}

// GetBytes returns an object's content, checked against its digest. When the object is replaced while it
// is read, it reads the new one. The errors are ErrObjectNotFound, ErrObjectCorrupt, ErrTimeout and
// ErrNotConnected as for Get, and ErrConflict when the object is replaced again and again.
func (s *ObjectStore) GetBytes(ctx context.Context, name string, opts ...ObjectOption) ([]byte, error) {
	var data []byte
	err := s.transfer(ctx, name, opts, func(result *objectReader) (err error) {
		data, err = result.readAll()
		return err
	})
	if err != nil {
		return nil, s.wrap(opGetObject, name, err)
	}
	return data, nil
}

// GetString is GetBytes as a string.
func (s *ObjectStore) GetString(ctx context.Context, name string, opts ...ObjectOption) (string, error) {
	data, err := s.GetBytes(ctx, name, opts...)
	return string(data), err
}

// objectRestarts bounds how often a download starts anew.
const objectRestarts = 10

// transfer lets read have the object, and the new one when it was replaced meanwhile.
func (s *ObjectStore) transfer(ctx context.Context, name string, opts []ObjectOption, read func(*objectReader) error) error {
	set := objectOptionsOf(opts)
	for attempt := 1; ; attempt++ {
		result, err := s.open(ctx, name, set)
		if err != nil {
			return err
		}
		err = read(result)
		_ = result.Close()
		if !errors.Is(err, ErrConflict) || attempt == objectRestarts {
			return err
		}
	}
}

// readAll returns the content, for which it allocates once.
func (o *objectReader) readAll() ([]byte, error) {
	// For the size and the room in which ReadFrom meets the end; what the chunks cannot hold is not
	// allocated on the word of the metadata alone.
	size := min(o.info.Size, uint64(o.info.Chunks)*uint64(max(o.client.conn.MaxPayload(), 0)))
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := data.ReadFrom(o); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// WriteTo implements io.WriterTo: it saves io.Copy a buffer.
func (o *objectReader) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for {
		chunk, err := o.next()
		if len(chunk) > 0 {
			n, failed := w.Write(chunk)
			if written += int64(n); failed != nil {
				return written, failed
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return written, err
		}
	}
}
