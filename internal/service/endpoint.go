package service

import (
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
)

// Endpoint is one of a service.
type Endpoint struct {
	info             micro.EndpointInfo
	requests, errors atomic.Int64
	took             atomic.Int64 // nanoseconds
	last             atomic.Pointer[string]
}

// What is counted of a request whose handler has ended its goroutine, and of one that was dropped.
var (
	exited  = &fault.Answered{Told: "500:Internal Server Error"}
	refused = &fault.Answered{Told: "503:Service Unavailable"}
)

// mostTold is how much of a text is kept, in bytes: the answer to STATS holds those of all endpoints.
const mostTold = 200

// Count makes a subscription count for the endpoint.
func (e *Endpoint) Count(o *receive.Options) {
	handle, refuse := o.Handle, o.Refuse
	o.Handle = func(m *natsgo.Msg) (err error) {
		err = exited
		defer func(begun time.Time) { e.count(time.Since(begun), err) }(time.Now())
		return handle(m)
	}
	o.Refuse = func(m *natsgo.Msg) {
		e.count(0, refused)
		refuse(m)
	}
}

// count notes of an error no more than the caller was told: whoever asks for STATS reads it.
func (e *Endpoint) count(took time.Duration, err error) {
	e.requests.Add(1)
	e.took.Add(int64(took))
	if err == nil {
		return
	}
	e.errors.Add(1)
	told := exited
	_ = errors.As(err, &told)
	last := told.Told
	if len(last) > mostTold {
		last = strings.ToValidUTF8(last[:mostTold], "") + "..."
	}
	e.last.Store(&last)
}

func (e *Endpoint) reset() {
	e.requests.Store(0)
	e.errors.Store(0)
	e.took.Store(0)
	e.last.Store(nil)
}

func (e *Endpoint) describe() micro.EndpointInfo {
	info := e.info
	info.Metadata = maps.Clone(info.Metadata)
	return info
}

func (e *Endpoint) stats() *micro.EndpointStats {
	s := &micro.EndpointStats{
		Name: e.info.Name, Subject: e.info.Subject, QueueGroup: e.info.QueueGroup,
		NumErrors: int(e.errors.Load()), NumRequests: int(e.requests.Load()), ProcessingTime: time.Duration(e.took.Load()),
	}
	if last := e.last.Load(); last != nil {
		s.LastError = *last
	}
	if s.NumRequests > 0 {
		s.AverageProcessingTime = s.ProcessingTime / time.Duration(s.NumRequests)
	}
	return s
}
