package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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

// source reads the content of an upload beside it, so that one that blocks holds up nobody for longer than its
// context. A Read that has begun is left to itself then, with the buffer that it has.
type source struct {
	r      io.Reader
	wanted chan []byte // nil when Read cannot block
	got    chan sourceRead
}

type sourceRead struct {
	n   int
	err error
}

func newSource(ctx context.Context, r io.Reader, idle time.Duration) *source {
	s := &source{r: r}
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
func (s *source) read(ctx context.Context, buffer []byte) (int, error) {
	if s.wanted == nil {
		return io.ReadFull(s.r, buffer)
	}
	s.wanted <- buffer
	select {
	case read := <-s.got:
		return read.n, read.err
	case <-ctx.Done():
		return 0, fault.Ended(ctx)
	}
}

// close lets the reading end, after a Read that has begun.
func (s *source) close() {
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

// position is where the content of an upload begins in a source that can be read again.
type position struct {
	io.Seeker
	offset, size int64
}

// positionOf returns a position without a Seeker for a source that can be read once, or whose size is not known.
func positionOf(r io.Reader) position {
	size := sizeOf(r)
	seeker, ok := r.(io.Seeker)
	if size < 0 || !ok {
		return position{}
	}
	offset, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return position{}
	}
	return position{seeker, offset, size}
}

// sizeOf returns how much r is going to yield, or -1.
func sizeOf(r io.Reader) int64 {
	switch r := r.(type) {
	case interface{ Len() int }:
		return int64(r.Len())
	case *os.File:
		info, err := r.Stat()
		if err != nil || !info.Mode().IsRegular() {
			return -1
		}
		offset, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return -1
		}
		return max(info.Size()-offset, 0)
	}
	return -1
}
