package nats

import (
	"io"
	"os"
)

// ObjectOption changes one upload or download.
type ObjectOption func(*objectOptions)

type objectOptions struct {
	progress    func(done, total int64)
	showDeleted bool
	unverified  bool
}

// WithProgress lets an upload or download report how far it is: report is called with the bytes that are
// stored, or read, and with how many there are in all, -1 while an upload does not know. It is called once
// for every chunk, from the goroutine of the call or, for Get, of the Read, so it should not take long; and
// at least once, so that the last call of a success has done == total. A download that starts anew, because
// the object was replaced under it, counts from the beginning. A panic of report is logged and goes no
// further.
//
// The total of an upload is known for byte slices, strings and files, and for a reader that has a method Len
// or is an *os.File.
func WithProgress(report func(done, total int64)) ObjectOption {
	return func(o *objectOptions) { o.progress = report }
}

// WithDeletedObject lets a download of a deleted object yield no bytes, as jetstream.GetObjectShowDeleted
// does, instead of ErrObjectNotFound.
func WithDeletedObject() ObjectOption {
	return func(o *objectOptions) { o.showDeleted = true }
}

// WithUnverifiedObject lets a download yield content that cannot be checked: that of an object whose digest is
// missing or is not SHA-256, and that of an object of whose metadata only a part can be read, as another client may
// have written them. They are ErrObjectCorrupt otherwise. What can be checked is checked all the same.
func WithUnverifiedObject() ObjectOption {
	return func(o *objectOptions) { o.unverified = true }
}

func objectOptionsOf(opts []ObjectOption) objectOptions {
	var o objectOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o
}

// report calls the progress function, if there is one.
func (o *objectOptions) report(c *Client, done, total int64) {
	if o.progress != nil {
		c.contain("WithProgress", func() { o.progress(done, total) })
	}
}

// sourcePosition is where the content of an upload begins in a source that can be read again.
type sourcePosition struct {
	io.Seeker
	offset, size int64
}

// positionOf returns a position without a Seeker for a source that can be read once, or whose size is not known.
func positionOf(r io.Reader) sourcePosition {
	size := sizeOf(r)
	seeker, ok := r.(io.Seeker)
	if size < 0 || !ok {
		return sourcePosition{}
	}
	offset, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return sourcePosition{}
	}
	return sourcePosition{seeker, offset, size}
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
