package jsapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/sentinel"
)

// Options say which API is asked.
type Options struct {
	// Domain is JetStream's, and Prefix the API's where it is imported from another account. One of them is
	// empty.
	Domain, Prefix string
	// Timeout is the time of a call that has none of its own.
	Timeout time.Duration
	// Upstream are the user's own options of upstream.
	Upstream []jetstream.JetStreamOpt
}

// API is the JetStream API of one account and domain, over one connection.
type API struct {
	conn    *conn.Conn
	o       Options
	js      jetstream.JetStream
	prefix  string // of the API's subjects, with the dot at its end
	finder  finder
	windows windows
	nodes   *sentinel.Nodes
}

// New returns the API over a connection that has been opened.
func New(c *conn.Conn, o Options) (*API, error) {
	a := &API{conn: c, o: o, prefix: jetstream.DefaultAPIPrefix}
	switch {
	case o.Prefix != "":
		a.prefix = strings.TrimSuffix(o.Prefix, ".") + "."
	case o.Domain != "":
		a.prefix = "$JS." + o.Domain + ".API."
	}
	a.finder.api = a
	a.windows.turn = newTurn()
	a.nodes = sentinel.New(func() time.Duration {
		_, trip := c.Peer()
		return trip
	})
	var err error
	a.js, err = a.handle()
	return a, err
}

// handle returns a new handle of upstream's.
func (a *API) handle(more ...jetstream.JetStreamOpt) (js jetstream.JetStream, err error) {
	opts := slices.Concat([]jetstream.JetStreamOpt{
		jetstream.WithDefaultTimeout(a.o.Timeout),
		// Without it the future of a publish that no stream stores never resolves.
		jetstream.WithPublishAsyncTimeout(a.o.Timeout),
	}, a.o.Upstream, more)
	switch {
	case a.o.Prefix != "":
		js, err = jetstream.NewWithAPIPrefix(a.conn.NATS(), a.prefix, opts...)
	case a.o.Domain != "":
		js, err = jetstream.NewWithDomain(a.conn.NATS(), a.o.Domain, opts...)
	default:
		js, err = jetstream.New(a.conn.NATS(), opts...)
	}
	if err != nil {
		return nil, fault.New("connect", "", fault.ErrInvalidConfig, "jetstream: %w", err)
	}
	return js, nil
}

// Foreign returns an error when an acknowledgement is of another domain than the one that a message on subject
// is for: then it is no answer, and the right one may come as well. A prefix may be that of an import, under any
// name, and says nothing about the domain.
func (a *API) Foreign(subject string, ack *jetstream.PubAck) error {
	if a.o.Domain == "" || ack.Domain == a.o.Domain {
		return nil
	}
	if of, _ := a.Of(subject); of != a {
		return nil // it is written to another domain
	}
	return foreign(fmt.Sprintf("the stream %q of %q, and not of %q", ack.Stream, ack.Domain, a.o.Domain))
}

// foreign is a fault.ErrWrongDomain that leaves it to fault.Wrap to say so.
type foreign string

func (f foreign) Error() string { return string(f) }

func (f foreign) Unwrap() error { return fault.ErrWrongDomain }

// JetStream returns upstream's handle, whose own default for calls without a deadline is the API's.
func (a *API) JetStream() jetstream.JetStream { return a.js }

// Conn returns the connection.
func (a *API) Conn() *conn.Conn { return a.conn }

// Nodes returns the watch over the servers that lead consumers.
func (a *API) Nodes() *sentinel.Nodes { return a.nodes }

// Subject returns the subject of one of the API's verbs.
func (a *API) Subject(verb string) string { return a.prefix + verb }

// absence is how long nobody answers for the API where the servers that do may be starting.
const absence = 2 * time.Second

// Absent returns an error when an answer, or an error of upstream, means that there is no JetStream, for a question
// that was first asked at that time. The API of a domain or of another account may be out of reach for a
// while; so may a cluster's, whose servers need not all have JetStream.
func (a *API) Absent(err error, begun time.Time) error {
	info := a.conn.Info()
	switch {
	case !errors.Is(err, natsgo.ErrNoResponders) || a.prefix != jetstream.DefaultAPIPrefix:
		return nil
	case info.Cluster == "" && !info.JetStream, time.Since(begun) > absence:
		return fault.Joined{fault.ErrJetStreamDisabled, natsgo.ErrNoResponders}
	}
	return nil
}

// Wrap is fault.Wrap for calls to the JetStream API, which has its own way to say that it is not there. An error that
// has its kind, as that of a publish, is not of the API.
func Wrap(op, target string, err error) error {
	const text = "nobody answers for it; is it enabled on the server and is the domain right? %w"
	switch _, known := errors.AsType[*fault.Error](err); {
	case known || !errors.Is(err, natsgo.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse):
		return fault.Wrap(op, target, err)
	case errors.Is(err, fault.ErrJetStreamDisabled): // which is said below
		err = natsgo.ErrNoResponders
	case errors.Is(err, context.DeadlineExceeded): // it may have come
		return fault.New(op, target, fault.ErrTimeout, "%w: "+text, fault.ErrJetStreamDisabled, err)
	}
	return fault.New(op, target, fault.ErrJetStreamDisabled, text, err)
}

// WrapBucket is Wrap for calls about buckets, whose streams nobody knows: a missing one is a missing bucket, and the
// operation and the target take the place of those that err has.
func WrapBucket(op, target string, err error) error {
	if err == nil {
		return nil
	}
	e := *Wrap(op, target, err).(*fault.Error) //nolint:errorlint // it makes no other
	e.Op, e.Target = op, target
	missing := errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, fault.ErrNoStream) || errors.Is(err, jetstream.ErrNoStreamResponse)
	if missing && e.Kind != fault.ErrBucketNotFound { //nolint:errorlint // set below
		cause := err
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			cause = fault.Joined{jetstream.ErrBucketNotFound, err}
		}
		e.Kind, e.Cause = fault.ErrBucketNotFound, cause
	}
	return &e
}
