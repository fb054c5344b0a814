package nats

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ensure"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// EnsureOption changes what EnsureStream and EnsureConsumer may do.
type EnsureOption func(*ensureOptions)

type ensureOptions = ensure.Options

// AllowShrink lets EnsureStream and EnsureConsumer make changes that delete messages, drop subjects
// or lower limits. Without it they are a *DriftError.
func AllowShrink() EnsureOption { return func(o *ensureOptions) { o.Shrink = true } }

// WithSettled waits until the server has done what the configuration asks for. Without it a stream or consumer
// that gets other replicas, or another placement, is returned while the server goes on copying, which is
// logged: until then the Cluster.Desired of its Info tells what is to be, and Replicas what is. The end
// of ctx is then ErrTimeout; the configuration is stored all the same.
func WithSettled() EnsureOption { return func(o *ensureOptions) { o.Settled = true } }

// WithGeneration numbers a configuration: count it up whenever the configuration in the code changes.
// The number is kept in the metadata of the stream or consumer, and a configuration with a lower one,
// or with none, leaves it as it is and reports no error. So a pod of an older release that restarts
// beside newer ones changes nothing, in whatever order they start.
//
// The server has no compare-and-set for configurations: of two pods that change the same thing within
// the same few milliseconds the later one wins. A pod that restarts has nothing to change, unless the
// configuration that it finds is of an older generation.
func WithGeneration(n uint64) EnsureOption { return func(o *ensureOptions) { o.Generation = n } }

// ensurer ensures one thing.
func (c *Client) ensurer(o ensureOptions) ensure.Ensurer {
	return ensure.Ensurer{API: c.api, Log: c.log, Options: o}
}

// ensureFault wraps an error of ensuring, but for what differs, which says by itself what it is about.
func ensureFault(op, target string, err error, differs DriftError, wrap func(op, target string, err error) error) error {
	found, ok := err.(*ensure.DriftError) //nolint:errorlint // it is not wrapped
	if !ok {
		return wrap(op, target, err)
	}
	for _, d := range found.Found {
		differs.Drifts = append(differs.Drifts, Drift(d))
	}
	return &differs
}

// EnsureStream creates a stream, or changes the one there is to what cfg says. It never shrinks one
// by accident: when that would delete messages, drop subjects or lower a limit, or cannot be done at
// all, it changes nothing and returns a *DriftError that lists every field that differs; AllowShrink
// goes ahead with what can be done. Upstream's CreateOrUpdateStream with an older configuration
// deletes what is too much for it and returns nil.
//
// A field that cfg leaves at zero means "as it is", and in a new stream the default, as CreateStream
// has it. So no field can be set to zero here, and no switch turned off: UpdateStream can. Metadata
// is merged by key, and ConsumerLimits by limit. A change of the replicas goes on after it has returned,
// unless WithSettled waits for it. The other errors are those of CreateStream.
func (c *Client) EnsureStream(ctx context.Context, cfg *jetstream.StreamConfig, opts ...EnsureOption) (jetstream.Stream, error) {
	const op = "ensure stream"
	fresh, err := c.streamConfig(ctx, op, cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.conn.Deadline(ctx)
	defer cancel()
	stream, err := c.ensurer(applied(ensureOptions{}, opts)).Stream(ctx, *cfg, fresh)
	return stream, ensureFault(op, cfg.Name, c.api.Overlap(ctx, &fresh, err), DriftError{Stream: cfg.Name}, jsapi.Wrap)
}

// EnsureConsumer creates a consumer, or changes the one there is to what cfg says, by the rules of
// EnsureStream: a change that drops a filter's subjects or lowers a limit, or cannot be made, is a
// *DriftError. A consumer keeps its progress. It must have a name, and is durable as CreateConsumer
// has it. The other errors are those of CreateConsumer.
func (c *Client) EnsureConsumer(ctx context.Context, stream string, cfg *jetstream.ConsumerConfig, opts ...EnsureOption) (jetstream.Consumer, error) {
	const op = "ensure consumer"
	want, err := c.consumerConfig(ctx, op, stream, cfg, c.checkNamed)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.conn.Deadline(ctx)
	defer cancel()
	consumer, err := c.ensurer(applied(ensureOptions{}, opts)).Consumer(ctx, stream, want)
	differs := DriftError{Stream: stream, Consumer: want.Name}
	return consumer, ensureFault(op, path(stream, want.Name), err, differs, jsapi.Wrap)
}

// DriftError is returned by EnsureStream, EnsureConsumer, EnsureKeyValue and EnsureObjectStore when what
// the server has differs from what is wanted in a way that they do not mend by themselves, and by
// CreateKeyValue and CreateObjectStore when it differs at all. Its text names every difference and what
// to do about it. It is ErrAlreadyExists.
type DriftError struct {
	// Bucket that differs, when it is one of keys or of objects.
	Bucket string
	// Stream that differs, or whose consumer does, or that holds the objects of Bucket; empty for a
	// bucket of keys.
	Stream string
	// Consumer that differs; empty when the stream does.
	Consumer string
	// Drifts has every field that differs, those included that could be changed without harm.
	Drifts []Drift

	create bool // the call changes nothing
}

// Drift is one field of a configuration that differs.
type Drift struct {
	// Field is the name of the field in jetstream.StreamConfig, ConsumerConfig, KeyValueConfig or
	// ObjectStoreConfig.
	Field string
	// Live is what the server has.
	Live any
	// Want is what was asked for.
	Want any
	// Changeable tells whether the server can change the field of something that exists.
	Changeable bool
	// Shrinks tells whether the change drops messages or subjects, or lowers a limit, so that it is
	// not made unasked.
	Shrinks bool
	// Effect is what the change would do; empty when there is nothing to warn of.
	Effect string
}

// String returns the field, both values and the effect on one line.
func (d Drift) String() string { return drift.Difference(d).String() }

func (e *DriftError) Error() string {
	texts := make([]string, len(e.Drifts))
	fixed, shrinks := false, false
	for i, d := range e.Drifts {
		texts[i] = d.String()
		fixed, shrinks = fixed || !d.Changeable, shrinks || d.Shrinks
	}
	verb, what, kind := "ensure", "stream", ""
	switch {
	case e.Bucket != "" && e.Stream != "":
		what, kind = "object store", "ObjectStore"
	case e.Bucket != "":
		what, kind = "key-value bucket", "KeyValue"
	case e.Consumer != "":
		what = "consumer"
	}
	if e.create {
		verb = "create"
	}
	remedy := "AllowShrink goes ahead"
	switch {
	case fixed:
		remedy = "it has to be deleted and created anew, or the configuration adapted"
	case e.create && !shrinks:
		remedy = "Ensure" + kind + " adapts it"
	case kind != "": // neither Ensure takes AllowShrink
		remedy = "UpdateStream of " + cmp.Or(e.Stream, keyvalue.StreamPrefix+e.Bucket) + " goes ahead"
	}
	return fmt.Sprintf("%s %s %q: differs: %s; %s", verb, what, e.target(), strings.Join(texts, ", "), remedy)
}

func (e *DriftError) target() string { return cmp.Or(e.Bucket, path(e.Stream, e.Consumer)) }

// Unwrap returns ErrAlreadyExists, ErrSealed for what is, and upstream's error of the same meaning for a bucket.
func (e *DriftError) Unwrap() []error {
	errs := []error{ErrAlreadyExists}
	if slices.ContainsFunc(e.Drifts, func(d Drift) bool { return d.Field == "Sealed" && d.Live == true }) {
		errs = append(errs, ErrSealed)
	}
	if e.Bucket != "" {
		errs = append(errs, jetstream.ErrBucketExists)
	}
	return errs
}
