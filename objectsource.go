package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// How long a source may yield nothing, and no error, before it is asked again, after so many times.
const (
	sourcePause = 10 * time.Millisecond
	sourceTries = 100
)

// objectSource reads the content of an upload beside it, so that one that blocks holds up nobody for longer than its
// context. A Read that has begun is left to itself then, with the buffer that it has.
type objectSource struct {
	r      io.Reader
	wanted chan []byte // nil when Read cannot block
	got    chan sourceRead
}

type sourceRead struct {
	n   int
	err error
}

func newObjectSource(ctx context.Context, r io.Reader, idle time.Duration) *objectSource {
	s := &objectSource{r: r}
	switch r.(type) {
	case *bytes.Reader, *strings.Reader, *bytes.Buffer:
		return s
	}
	s.wanted, s.got = make(chan []byte), make(chan sourceRead, 1)
	go func() {
		for buffer := range s.wanted {
			readSource(ctx, r, buffer, idle, s.got)
		}
	}()
	return s
}

// read fills the buffer, but at the end of the content, as io.ReadFull does.
func (s *objectSource) read(ctx context.Context, buffer []byte, closing <-chan struct{}) (int, error) {
	if s.wanted == nil {
		return io.ReadFull(s.r, buffer)
	}
	s.wanted <- buffer
	select {
	case read := <-s.got:
		return read.n, read.err
	case <-ctx.Done():
		return 0, fault.Ended(ctx)
	case <-closing:
		return 0, ErrClosed
	}
}

// close lets the reading end, after a Read that has begun.
func (s *objectSource) close() {
	if s.wanted != nil {
		close(s.wanted)
	}
}

// readSource fills the buffer and tells got. A panic of the source is its error.
func readSource(ctx context.Context, r io.Reader, buffer []byte, idle time.Duration, got chan<- sourceRead) {
	read := sourceRead{err: fault.Exited()}
	defer func() {
		if value := recover(); value != nil {
			read.err = fault.Panicked(value)
		}
		got <- read
	}()
	empty, begun, err := 0, time.Time{}, error(nil)
	for read.n < len(buffer) && err == nil {
		var n int
		n, err = r.Read(buffer[read.n:])
		switch {
		case n < 0 || n > len(buffer)-read.n:
			err = fmt.Errorf("the source says that it has read %d bytes of %d", n, len(buffer)-read.n)
			n = 0
		case n > 0 || err != nil:
			empty = 0
		default:
			if empty++; empty == 1 {
				begun = time.Now()
			}
			if empty > sourceTries {
				pause.Sleep(ctx, sourcePause)
			}
			_, bound := ctx.Deadline()
			if err = fault.Ended(ctx); err == nil && !bound && time.Since(begun) > idle {
				err = io.ErrNoProgress
			}
		}
		read.n += n
	}
	switch {
	case read.n == len(buffer):
		err = nil
	case read.n > 0 && errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	read.err = err
}
