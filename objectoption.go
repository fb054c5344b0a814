package nats

import "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"

// ObjectOption changes one upload or download.
type ObjectOption func(*objectOptions)

// objectOptions are those of the engine.
type objectOptions struct {
	Progress   func(done, total int64)
	Deleted    bool
	Unverified bool
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
	return func(o *objectOptions) { o.Progress = report }
}

// WithDeletedObject lets a download of a deleted object yield no bytes, as jetstream.GetObjectShowDeleted
// does, instead of ErrObjectNotFound.
func WithDeletedObject() ObjectOption {
	return func(o *objectOptions) { o.Deleted = true }
}

// WithUnverifiedObject lets a download yield content that cannot be checked: that of an object whose digest is
// missing or is not SHA-256, and that of an object of whose metadata only a part can be read, as another client may
// have written them. They are ErrObjectCorrupt otherwise. What can be checked is checked all the same.
func WithUnverifiedObject() ObjectOption {
	return func(o *objectOptions) { o.Unverified = true }
}

// objectOptions applies the options. What a callback panics with goes no further.
func (c *Client) objectOptions(opts []ObjectOption) object.Options {
	var o objectOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	if report := o.Progress; report != nil {
		o.Progress = func(done, total int64) { c.contain("WithProgress", func() { report(done, total) }) }
	}
	return object.Options(o)
}
