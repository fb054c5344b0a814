package publish

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Publisher stores messages in streams.
type Publisher struct {
	api     *jsapi.API
	conn    *conn.Conn
	timeout time.Duration
	ids     ids
	hooks   Hooks
	hooked  bool
	ctx     context.Context // ends when nothing is waited for any more
	end     context.CancelFunc

	mu      sync.Mutex
	flying  int
	bytes   int
	room    chan struct{} // closed when there is room again; nil when nobody waits
	drained chan struct{} // closed when nothing is in flight; nil before Drain
	closed  bool
}

// New returns a publisher that lives as long as ctx, at most. Timeout is the time of what has none of its own.
func New(ctx context.Context, api *jsapi.API, timeout time.Duration) *Publisher {
	p := &Publisher{api: api, conn: api.Conn(), timeout: timeout}
	p.ctx, p.end = context.WithCancel(ctx)
	return p
}

// ids makes message IDs.
type ids struct {
	start  sync.Once
	prefix string
	last   atomic.Uint64
}

func (s *ids) next() string {
	s.start.Do(func() { s.prefix = rand.Text()[:16] + "." })
	id := make([]byte, 0, 64) // on the stack
	return string(strconv.AppendUint(append(id, s.prefix...), s.last.Add(1), 36))
}

// identify gives m an ID if it has none and wants one: without wanting, it has the header with no value.
func (p *Publisher) identify(m *natsgo.Msg) {
	switch id, there := m.Header[jetstream.MsgIDHeader]; {
	case len(id) > 0 && id[0] != "":
		return
	case there && len(id) == 0:
		if delete(m.Header, jetstream.MsgIDHeader); len(m.Header) == 0 {
			m.Header = nil // the server reads the message faster
		}
		return
	case m.Header == nil:
		m.Header = make(natsgo.Header, 1)
	}
	m.Header[jetstream.MsgIDHeader] = []string{p.ids.next()}
}

// call begins the call of m. What only its ID keeps from being stored twice is not sent again before it is known
// for how long its stream knows that.
func (p *Publisher) call(m *natsgo.Msg) *conn.Call {
	call := p.conn.Ask(m)
	if onlyByID(m) {
		call.Within(-1)
	}
	return call
}

// onlyByID tells whether nothing but its ID keeps m from being stored twice.
func onlyByID(m *natsgo.Msg) bool {
	return len(m.Header[jetstream.MsgIDHeader]) > 0 && len(m.Header[jetstream.ExpectedLastSeqHeader]) == 0 &&
		len(m.Header[jetstream.ExpectedLastSubjSeqHeader]) == 0
}

// sized adds the sizes to the error of a message that was too large, for the server or its stream.
func (p *Publisher) sized(ctx context.Context, err error, m *natsgo.Msg) error {
	if fault.CodeOf(err) != fault.CodeMessageTooLarge {
		return wire.Sized(err, m.Header, m.Data, p.conn.MaxPayload())
	}
	size := wire.HeaderSize(m.Header) + len(m.Data)
	if most := p.api.MaxSize(ctx, m.Subject); 0 < most && most < size {
		return fmt.Errorf("%d bytes, and the stream's max_msg_size is %d: %w", size, most, err)
	}
	return fmt.Errorf("%d bytes: %w", size, err)
}
