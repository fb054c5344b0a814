package jsapi

import (
	"errors"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Options say which API is asked.
type Options struct {
	// Domain is JetStream's, and Prefix the API's where it is imported from another account. One of them is
	// empty.
	Domain, Prefix string
	// Timeout is the time of a call that has none of its own.
	Timeout time.Duration
}

// API is the JetStream API of one account and domain, over one connection.
type API struct {
	conn   *conn.Conn
	js     jetstream.JetStream
	prefix string // of the API's subjects, with the dot at its end
	finder finder
}

// New returns the API over a connection that has been opened.
func New(c *conn.Conn, o Options) (*API, error) {
	opts := []jetstream.JetStreamOpt{
		jetstream.WithDefaultTimeout(o.Timeout),
		// Without it the future of a publish that no stream stores never resolves.
		jetstream.WithPublishAsyncTimeout(o.Timeout),
	}
	a := &API{conn: c}
	var err error
	switch {
	case o.Prefix != "":
		a.prefix = strings.TrimSuffix(o.Prefix, ".") + "."
		a.js, err = jetstream.NewWithAPIPrefix(c.NATS(), a.prefix, opts...)
	case o.Domain != "":
		a.prefix = "$JS." + o.Domain + ".API."
		a.js, err = jetstream.NewWithDomain(c.NATS(), o.Domain, opts...)
	default:
		a.prefix = jetstream.DefaultAPIPrefix
		a.js, err = jetstream.New(c.NATS(), opts...)
	}
	if err != nil {
		return nil, fault.New("connect", "", fault.ErrInvalidConfig, "jetstream: %w", err)
	}
	a.finder.api = a
	return a, nil
}

// JetStream returns upstream's handle, whose own default for calls without a deadline is the API's.
func (a *API) JetStream() jetstream.JetStream { return a.js }

// Conn returns the connection.
func (a *API) Conn() *conn.Conn { return a.conn }

// Subject returns the subject of one of the API's verbs.
func (a *API) Subject(verb string) string { return a.prefix + verb }

// Wrap is fault.Wrap for calls to the JetStream API, which has its own way to say that it is not there.
func Wrap(op, target string, err error) error {
	if errors.Is(err, natsgo.ErrNoResponders) && !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return fault.New(op, target, fault.ErrNoResponders,
			"no JetStream answers; is it enabled on the server and is the domain right? %w", err)
	}
	return fault.Wrap(op, target, err)
}
