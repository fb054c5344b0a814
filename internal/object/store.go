package object

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
)

// Reports takes what no caller sees.
type Reports interface {
	// LeftBehind is told of chunks that only a Sweep will remove, in the subject of the first of them.
	LeftBehind(bucket, subject string, err error)
	// Swept is told of an upload that was taken for an orphan.
	Swept(bucket, upload string, chunks int)
	// Unread is told of metadata of which only a part can be read.
	Unread(bucket, name string, err error)
	// Unmarked is told of an object that was deleted where there was no room to say so.
	Unmarked(bucket, name string)
	// Ended is told of a watcher that has ended by itself.
	Ended(bucket, subject string, err error)
}

// Options change one upload or download.
type Options struct {
	Progress   func(done, total int64)
	Deleted    bool // a deleted object is an empty one
	Unverified bool // what cannot be checked is read
}

func (o *Options) report(done, total int64) {
	if o.Progress != nil {
		o.Progress(done, total)
	}
}

// Store is a bucket of objects.
type Store struct {
	api       *jsapi.API
	conn      *conn.Conn
	publisher *publish.Publisher
	life      *lifecycle.Life
	reports   Reports
	bucket    string
	timeout   time.Duration // of what has none of its own
	limit     atomic.Int64  // of the bucket, for the size of a message; 0 before it is asked for
	buffers   sync.Pool     // of uploads that went well: of others, something may still be sent, or read from the source
}

// Open returns a bucket, which need not exist. Nothing is sent.
func Open(api *jsapi.API, p *publish.Publisher, life *lifecycle.Life, bucket string, timeout time.Duration, r Reports) *Store {
	return &Store{api: api, conn: api.Conn(), publisher: p, life: life, reports: r, bucket: bucket, timeout: timeout}
}

func (s *Store) wrap(op, name string, err error) error {
	return jsapi.Wrap(op, fault.Path(s.bucket, name), err)
}

// named is wrap that names the object in the place of a subject that nobody knows.
func named(op, bucket, name string, err error) error {
	return jsapi.WrapBucket(op, fault.Path(bucket, name), err)
}
