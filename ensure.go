package nats

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// EnsureOption changes what EnsureStream and EnsureConsumer may do.
type EnsureOption func(*ensureOptions)

type ensureOptions struct {
	shrink     bool
	generation uint64
}

// AllowShrink lets EnsureStream and EnsureConsumer make changes that delete messages, drop subjects
// or lower limits. Without it they are a *DriftError.
func AllowShrink() EnsureOption { return func(o *ensureOptions) { o.shrink = true } }

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

// ensureAttempts bounds how often a change by somebody else, between the look and the deed, is met
// with another look.
const ensureAttempts = 32

// EnsureStream creates a stream, or changes the one there is to what cfg says. It never shrinks one
// by accident: when that would delete messages, drop subjects or lower a limit, or cannot be done at
// all, it changes nothing and returns a *DriftError that lists every field that differs; AllowShrink
// goes ahead with what can be done. Upstream's CreateOrUpdateStream with an older configuration
// deletes what is too much for it and returns nil.
//
// A field that cfg leaves at zero means "as it is", and in a new stream the default, as CreateStream
// has it. So no field can be set to zero here, and no switch turned off: UpdateStream can. Metadata
// is merged by key. The other errors are those of CreateStream.
func (c *Client) EnsureStream(ctx context.Context, cfg *jetstream.StreamConfig, opts ...EnsureOption) (jetstream.Stream, error) {
	const op = "ensure stream"
	js := c.js
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
	var kept []drift.Difference // what the server writes in its own way
	for range ensureAttempts {
		stream, err := js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = js.CreateStream(ctx, fresh)
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				continue // somebody was faster
			}
			return stream, jsapi.Wrap(op, want.Name, fault.Because(ctx, err))
		}
		if err != nil {
			return nil, jsapi.Wrap(op, want.Name, fault.Because(ctx, err))
		}
		info := stream.CachedInfo()
		if set.outdated(info.Config.Metadata) {
			c.log.Info("the stream is configured by a newer release; left as it is", "stream", want.Name)
			return stream, nil
		}
		merged, found := drift.Stream(info.Config, want, &info.State)
		switch {
		case len(found) == 0, reflect.DeepEqual(found, kept):
			return stream, nil
		case drift.Forbids(found, set.shrink):
			return nil, &DriftError{Stream: want.Name, Drifts: driftsOf(found)}
		}
		changed, err := js.UpdateStream(ctx, merged)
		if err != nil {
			return nil, jsapi.Wrap(op, want.Name, fault.Because(ctx, err))
		}
		_, kept = drift.Stream(changed.CachedInfo().Config, want, &info.State)
		// The next round reads it back: another pod may have written at the same moment.
	}
	return nil, fail(op, want.Name, ErrConflict, "others keep changing it")
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
	js := c.js
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	set, target := ensureOptionsOf(opts), path(stream, want.Name)
	want.Metadata = set.numbered(cfg.Metadata)
	var kept []drift.Difference // what the server writes in its own way
	for range ensureAttempts {
		consumer, err := js.Consumer(ctx, stream, want.Name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			consumer, err = js.CreateConsumer(ctx, stream, want)
			if errors.Is(err, jetstream.ErrConsumerExists) {
				continue // somebody was faster
			}
			return consumer, jsapi.Wrap(op, target, fault.Because(ctx, err))
		}
		if err != nil {
			return nil, jsapi.Wrap(op, target, fault.Because(ctx, err))
		}
		live := consumer.CachedInfo().Config
		if set.outdated(live.Metadata) {
			c.log.Info("the consumer is configured by a newer release; left as it is", "consumer", target)
			return consumer, nil
		}
		merged, found := drift.Consumer(live, want)
		switch {
		case len(found) == 0, reflect.DeepEqual(found, kept):
			return consumer, nil
		case drift.Forbids(found, set.shrink):
			return nil, &DriftError{Stream: stream, Consumer: want.Name, Drifts: driftsOf(found)}
		}
		changed, err := js.UpdateConsumer(ctx, stream, merged)
		if err != nil {
			return nil, jsapi.Wrap(op, target, fault.Because(ctx, err))
		}
		_, kept = drift.Consumer(changed.CachedInfo().Config, want)
	}
	return nil, fail(op, target, ErrConflict, "others keep changing it")
}
