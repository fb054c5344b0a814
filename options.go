package nats

import (
	"crypto/tls"
	"log/slog"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Option changes how NewClient builds a client beyond what a Config can say.
type Option func(*options)

type options struct {
	log       *slog.Logger
	onEvent   []func(Event)
	resolver  Resolver
	tls       *tls.Config
	nats      []natsgo.Option
	jetStream []jetstream.JetStreamOpt

	background   bool
	interceptors []Interceptor
	starts       []func(*Client) (stop func())
	values       map[any]any
}

// WithOptions is all of opts, for a package that adds something to a client.
func WithOptions(opts ...Option) Option {
	return func(o *options) { *o = applied(*o, opts) }
}

// applied returns o with the options, of which some may be nil.
func applied[O any, F ~func(*O)](o O, opts []F) O {
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o
}

// WithStart calls f with the client before NewClient returns it, and what f returns, which may be nil, first of all at
// Close, within its time. Of several the first is stopped last. A panic of either is logged.
func WithStart(f func(*Client) (stop func())) Option {
	return func(o *options) {
		if f != nil {
			o.starts = append(o.starts, f)
		}
	}
}

// WithValue keeps a value beside the client, for a package that adds something to it: Message.Value of what the client
// receives returns it. As with context.WithValue, a key has a type of its own.
func WithValue(key, value any) Option {
	return func(o *options) {
		if o.values == nil {
			o.values = make(map[any]any)
		}
		o.values[key] = value
	}
}

// WithLogger sends the client's log to l. Without it the client is silent.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) {
		if l != nil {
			o.log = l
		}
	}
}

// WithEventHandler calls h for everything that happens to the client beside its calls: see Event.
// The calls come one at a time, in order, from a goroutine of their own, so a slow h delays no
// message; when it falls more than 1,024 events behind, the oldest are dropped and the next
// event's Dropped tells how many. It may be given several times: each h gets all events, and none waits for another.
func WithEventHandler(h func(Event)) Option {
	return func(o *options) {
		if h != nil {
			o.onEvent = append(o.onEvent, h)
		}
	}
}

// WithResolver looks the servers up with r instead of Consul, whatever Config.UseConsul says.
// Config.URLs is the fallback.
func WithResolver(r Resolver) Option {
	return func(o *options) { o.resolver = r }
}

// WithBackgroundConnect makes NewClient return at once, before a connection stands. Subscriptions
// made meanwhile take effect when it comes: Subscribe does not wait, and a denied subject is then
// an EventAsyncError. Calls that ask JetStream, to declare a stream, to open a bucket or to pull,
// wait for the first connection as long as their context allows, without a deadline for ever. A message
// with headers is ErrNotConnected until then. EventConnected tells when it stands.
func WithBackgroundConnect() Option {
	return func(o *options) { o.background = true }
}

// WithTLSConfig demands TLS and starts from a copy of cfg; the tls_* keys of the Config are applied
// on top of it.
func WithTLSConfig(cfg *tls.Config) Option {
	return func(o *options) {
		if cfg != nil {
			o.tls = cfg.Clone()
		}
	}
}

// WithNATSOptions applies options of nats.go after all others. Callbacks set here are called in
// addition to the client's own. Most services do not need it.
func WithNATSOptions(opts ...natsgo.Option) Option {
	return func(o *options) { o.nats = append(o.nats, opts...) }
}

// WithJetStreamOptions applies options of upstream's jetstream to the handle that JetStream returns, and to those
// that the client's own calls use. Which domain or prefix is asked is the Config's to say.
func WithJetStreamOptions(opts ...jetstream.JetStreamOpt) Option {
	return func(o *options) { o.jetStream = append(o.jetStream, opts...) }
}
