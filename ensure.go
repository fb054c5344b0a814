package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// EnsureOption changes what EnsureStream and EnsureConsumer may do.
type EnsureOption func(*ensureOptions)

type ensureOptions struct {
	shrink     bool
	settled    bool
	generation uint64
}

// AllowShrink lets EnsureStream and EnsureConsumer make changes that delete messages, drop subjects
// or lower limits. Without it they are a *DriftError.
func AllowShrink() EnsureOption { return func(o *ensureOptions) { o.shrink = true } }

// WithSettled waits until the server has done what the configuration asks for. Without it a stream or consumer
// that gets other replicas, or another placement, is returned while the server goes on copying, which is
// logged: until then the Cluster.Desired of its Info tells what is to be, and Replicas what is. The end
// of ctx is then ErrTimeout; the configuration is stored all the same.
func WithSettled() EnsureOption { return func(o *ensureOptions) { o.settled = true } }

// WithGeneration numbers a configuration: count it up whenever the configuration in the code changes.
// The number is kept in the metadata of the stream or consumer, and a configuration with a lower one,
// or with none, leaves it as it is and reports no error. So a pod of an older release that restarts
// beside newer ones changes nothing, in whatever order they start.
//
// The server has no compare-and-set for configurations: of two pods that change the same thing within
// the same few milliseconds the later one wins. A pod that restarts has nothing to change, unless the
// configuration that it finds is of an older generation.
func WithGeneration(n uint64) EnsureOption { return func(o *ensureOptions) { o.generation = n } }

// generationKey is where the number is kept.
const generationKey = "isa_cloud.generation"

func ensureOptionsOf(opts []EnsureOption) ensureOptions {
	var o ensureOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o
}

// numbered returns metadata with the generation, where there is one.
func (o *ensureOptions) numbered(metadata map[string]string) map[string]string {
	if o.generation == 0 {
		return metadata
	}
	own := make(map[string]string, len(metadata)+1)
	maps.Copy(own, metadata)
	own[generationKey] = strconv.FormatUint(o.generation, 10)
	return own
}

// outdated tells whether what the server has is of a later generation.
func (o *ensureOptions) outdated(metadata map[string]string) bool {
	live, err := strconv.ParseUint(metadata[generationKey], 10, 64)
	return err == nil && live > o.generation
}

const (
	// ensureAttempts bounds how often a change by somebody else, between the look and the deed, is met
	// with another look.
	ensureAttempts = 32
	// settlePause is between two looks at what the server goes on with.
	settlePause = 100 * time.Millisecond
)

// ensured is how a thing of the server, of which upstream has a handle H, gets the configuration C.
type ensured[H, C any] struct {
	look, create    func(context.Context, jetstream.JetStream) (H, error)
	change          func(context.Context, jetstream.JetStream, C) (H, error)
	compare         func(H) (C, []drift.Difference)
	about           func(H) (metadata map[string]string, replicas int, cluster *jetstream.ClusterInfo)
	missing, exists error
	differs         DriftError // all but the differences
}

// ensure creates what is not there, or changes what is, unless differs says that it is to be created
// only. Ctx must have a deadline.
func ensure[H, C any](ctx context.Context, c *Client, set ensureOptions, e ensured[H, C]) (H, error) {
	var none H
	var kept []drift.Difference // what the server writes in its own way
	creates := e.differs.create
	for range ensureAttempts {
		act := e.look
		if creates {
			act = e.create
		}
		live, err := jsapi.Look(ctx, c.api, act)
		switch {
		case creates && errors.Is(err, e.exists), !creates && errors.Is(err, e.missing):
			creates = !creates // somebody may be faster
			continue
		case err != nil:
			return none, err
		case creates:
			return e.settle(ctx, c, set, live)
		}
		metadata, _, _ := e.about(live)
		if set.outdated(metadata) {
			c.log.Info("a newer release has configured it; left as it is", "target", e.differs.target())
			return live, nil
		}
		merged, found := e.compare(live)
		switch {
		case len(found) == 0, reflect.DeepEqual(found, kept):
			return e.settle(ctx, c, set, live)
		case e.differs.create, drift.Forbids(found, set.shrink):
			differs := e.differs
			differs.Drifts = driftsOf(found)
			return none, &differs
		}
		if live, err = jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (H, error) {
			return e.change(ctx, js, merged)
		}); err != nil {
			return none, err
		}
		_, kept = e.compare(live)
		// The next round reads it back: another pod may have written at the same moment.
	}
	return none, fault.Joined{ErrConflict, errors.New("others keep changing it")}
}

// settle waits until the server is done with live, or says that it is not.
func (e *ensured[H, C]) settle(ctx context.Context, c *Client, set ensureOptions, live H) (H, error) {
	for {
		_, replicas, cluster := e.about(live)
		state := "begun"
		switch {
		case cluster == nil:
			return live, nil
		case cluster.Desired == nil && 1+len(cluster.Replicas) >= replicas: // a server that has just begun may tell of neither
			return live, nil
		case cluster.Desired != nil && cluster.Desired.Status != nil:
			state = cluster.Desired.Status.Description
		}
		if !set.settled {
			c.log.Info("the server goes on placing the replicas", "target", e.differs.target(), "state", state)
			return live, nil
		}
		pause.Sleep(ctx, settlePause)
		var err error
		if live, err = jsapi.Look(ctx, c.api, e.look); err != nil {
			var none H
			return none, fault.Joined{err, errors.New("the server goes on placing the replicas: " + state)}
		}
	}
}

// ensuredStream is how a stream gets a configuration. Fresh is a new one's.
func ensuredStream(
	fresh jetstream.StreamConfig, differs DriftError,
	compare func(*jetstream.StreamInfo) (jetstream.StreamConfig, []drift.Difference),
) ensured[jetstream.Stream, jetstream.StreamConfig] {
	return ensured[jetstream.Stream, jetstream.StreamConfig]{
		look: func(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
			return js.Stream(ctx, fresh.Name)
		},
		create: func(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
			return js.CreateStream(ctx, fresh)
		},
		change: func(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
			return js.UpdateStream(ctx, cfg)
		},
		compare: func(s jetstream.Stream) (jetstream.StreamConfig, []drift.Difference) { return compare(s.CachedInfo()) },
		about: func(s jetstream.Stream) (map[string]string, int, *jetstream.ClusterInfo) {
			return s.CachedInfo().Config.Metadata, s.CachedInfo().Config.Replicas, s.CachedInfo().Cluster
		},
		missing: jetstream.ErrStreamNotFound, exists: jetstream.ErrStreamNameAlreadyInUse,
		differs: differs,
	}
}

// ensureFault wraps an error of ensure, but a *DriftError, which says by itself what it is about.
func ensureFault(op, target string, wrap func(op, target string, err error) error, err error) error {
	if differs, ok := err.(*DriftError); ok { //nolint:errorlint // it is not wrapped
		return differs
	}
	return wrap(op, target, err)
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
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	set := ensureOptionsOf(opts)
	want := *cfg
	want.Metadata = set.numbered(cfg.Metadata)
	fresh.Metadata = want.Metadata
	stream, err := ensure(ctx, c, set, ensuredStream(fresh, DriftError{Stream: want.Name},
		func(live *jetstream.StreamInfo) (jetstream.StreamConfig, []drift.Difference) {
			return drift.Stream(live.Config, want, &live.State)
		}))
	return stream, ensureFault(op, want.Name, jsapi.Wrap, c.overlap(ctx, &fresh, err))
}

// EnsureConsumer creates a consumer, or changes the one there is to what cfg says, by the rules of
// EnsureStream: a change that drops a filter's subjects or lowers a limit, or cannot be made, is a
// *DriftError. A consumer keeps its progress. It must have a name, and is durable as CreateConsumer
// has it. The other errors are those of CreateConsumer.
func (c *Client) EnsureConsumer(ctx context.Context, stream string, cfg *jetstream.ConsumerConfig, opts ...EnsureOption) (jetstream.Consumer, error) {
	const op = "ensure consumer"
	if cfg == nil {
		return nil, fail(op, stream, ErrInvalidArgument, "the ConsumerConfig is nil")
	}
	want := withDurable(*cfg)
	if err := checkName(op, "consumer", want.Name); err != nil {
		return nil, err
	}
	if err := c.checkConsumer(ctx, op, stream, &want); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	set := ensureOptionsOf(opts)
	want.Metadata = set.numbered(cfg.Metadata)
	consumer, err := ensure(ctx, c, set, ensured[jetstream.Consumer, jetstream.ConsumerConfig]{
		look: func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
			return js.Consumer(ctx, stream, want.Name)
		},
		create: func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
			return js.CreateConsumer(ctx, stream, want)
		},
		change: func(ctx context.Context, js jetstream.JetStream, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
			return js.UpdateConsumer(ctx, stream, cfg)
		},
		compare: func(live jetstream.Consumer) (jetstream.ConsumerConfig, []drift.Difference) {
			return drift.Consumer(live.CachedInfo().Config, want)
		},
		about: func(live jetstream.Consumer) (map[string]string, int, *jetstream.ClusterInfo) {
			return live.CachedInfo().Config.Metadata, live.CachedInfo().Config.Replicas, live.CachedInfo().Cluster
		},
		missing: jetstream.ErrConsumerNotFound, exists: jetstream.ErrConsumerExists,
		differs: DriftError{Stream: stream, Consumer: want.Name},
	})
	return consumer, ensureFault(op, path(stream, want.Name), jsapi.Wrap, err)
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

func driftsOf(found []drift.Difference) []Drift {
	drifts := make([]Drift, len(found))
	for i, d := range found {
		drifts[i] = Drift(d)
	}
	return drifts
}

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
