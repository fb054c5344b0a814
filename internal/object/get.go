package object

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

const opGet = "get object"

// Get opens an object for reading.
func (s *Store) Get(ctx context.Context, name string, opts Options) (*Reader, error) {
	result, err := s.open(ctx, name, opts)
	if err != nil {
		return nil, s.wrap(opGet, name, err)
	}
	return result, nil
}

// Bytes returns the content of an object.
func (s *Store) Bytes(ctx context.Context, name string, opts Options) ([]byte, error) {
	var data []byte
	err := s.transfer(ctx, name, opts, func(result *Reader) (err error) {
		data, err = result.readAll()
		return err
	})
	if err != nil {
		return nil, s.wrap(opGet, name, err)
	}
	return data, nil
}

// restarts bounds how often a download starts anew.
const restarts = 10

// transfer lets read have the object, and the new one when it was replaced meanwhile.
func (s *Store) transfer(ctx context.Context, name string, opts Options, read func(*Reader) error) error {
	for attempt := 1; ; attempt++ {
		result, err := s.open(ctx, name, opts)
		if err != nil {
			return err
		}
		err = read(result)
		_ = result.Close()
		if !errors.Is(err, fault.ErrConflict) || attempt == restarts {
			return err
		}
	}
}

// readAll returns the content, for which it allocates once.
func (o *Reader) readAll() ([]byte, error) {
	// For the size and the room in which ReadFrom meets the end; what the chunks cannot hold is not
	// allocated on the word of the metadata alone.
	size := min(o.info.Size, uint64(o.info.Chunks)*uint64(max(o.store.conn.MaxPayload(), 0)))
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := data.ReadFrom(o); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// WriteTo implements io.WriterTo: it saves io.Copy a buffer.
func (o *Reader) WriteTo(w io.Writer) (int64, error) {
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
