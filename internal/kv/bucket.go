package kv

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
)

// Reports takes what no caller sees. Keys are the bucket, and the filters behind it.
type Reports interface {
	// Stale is told when followed keys may be out of date, and why, where that is known.
	Stale(keys string, err error)
	// Fresh is told when they are up to date again.
	Fresh(keys string)
	// Blind is told when the state of a bucket may not be asked for, so that a purge goes unnoticed.
	Blind(bucket string, err error)
}

// Buckets are those of a client.
type Buckets struct {
	api       *jsapi.API
	conn      *conn.Conn
	publisher *publish.Publisher
	life      *lifecycle.Life
	timeout   time.Duration // of what has none of its own
	reports   Reports

	mu    sync.Mutex
	polls map[string]*poll // by stream
}

// New returns what the buckets of a client have in common. Nothing is sent.
func New(api *jsapi.API, p *publish.Publisher, life *lifecycle.Life, timeout time.Duration, r Reports) *Buckets {
	return &Buckets{api: api, conn: api.Conn(), publisher: p, life: life, timeout: timeout, reports: r, polls: make(map[string]*poll)}
}

// Bucket is a bucket of keys.
type Bucket struct {
	*Buckets
	name        string
	stream      string
	prefix      string                // of the subjects of keys
	writePrefix string                // of the subjects to which they are written
	getPrefix   string                // of those on which any replica is asked for them
	origin      string                // the bucket that this one mirrors, or empty
	facts       atomic.Pointer[facts] // as last told
}

// Open returns the bucket of whose stream the server has told info, when it was asked at that time.
func (s *Buckets) Open(info *jetstream.StreamInfo, asked time.Time) *Bucket {
	cfg := info.Config
	b := &Bucket{Buckets: s, stream: cfg.Name, name: strings.TrimPrefix(cfg.Name, StreamPrefix)}
	b.facts.Store(factsOf(info, asked))
	source := b.name
	if cfg.Mirror != nil {
		source = strings.TrimPrefix(cfg.Mirror.Name, StreamPrefix)
		b.origin = source
	}
	b.prefix = subjectPrefix + source + "."
	b.writePrefix = b.prefix
	b.getPrefix = s.api.Subject("DIRECT.GET." + b.stream + "." + b.prefix)
	switch {
	case cfg.Mirror != nil && cfg.Mirror.External != nil && cfg.Mirror.External.APIPrefix != "":
		b.writePrefix = cfg.Mirror.External.APIPrefix + "." + b.prefix
	case s.api.Subject("") != jetstream.DefaultAPIPrefix:
		b.writePrefix = s.api.Subject(b.prefix)
	}
	return b
}

// Name returns the name of the bucket.
func (b *Bucket) Name() string { return b.name }

// Origin returns the bucket that this one mirrors, or "".
func (b *Bucket) Origin() string { return b.origin }
