package ensure

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// Options say how far it goes.
type Options struct {
	// Shrink makes changes that do harm, too.
	Shrink bool
	// Settled waits until the server has done what it was told.
	Settled bool
	// Generation of the configuration; 0 for none.
	Generation uint64
	// CreateOnly changes nothing that is there.
	CreateOnly bool
}

// Ensurer ensures one thing. Its contexts must have a deadline.
type Ensurer struct {
	API *jsapi.API
	Log *slog.Logger
	Options
}

// DriftError is returned when what is there is not to be changed to what is wanted, or cannot be.
type DriftError struct{ Found []drift.Difference }

func (e *DriftError) Error() string { return fmt.Sprint("it differs: ", e.Found) }

// Stream ensures a stream. Fresh is want as a new stream gets it.
func (e Ensurer) Stream(ctx context.Context, want, fresh jetstream.StreamConfig) (jetstream.Stream, error) {
	want.Metadata = e.numbered(want.Metadata)
	fresh.Metadata = want.Metadata
	return e.stream(ctx, want.Name, fresh, func(live *jetstream.StreamInfo) (jetstream.StreamConfig, []drift.Difference) {
		return drift.Stream(live.Config, want, &live.State)
	})
}

// KeyValue ensures a bucket of keys. Fresh is want as a new bucket gets it.
func (e Ensurer) KeyValue(ctx context.Context, want, fresh jetstream.KeyValueConfig) (jetstream.Stream, error) {
	if e.CreateOnly {
		want = fresh
	}
	return e.stream(ctx, want.Bucket, drift.KeyValueStream(fresh), func(live *jetstream.StreamInfo) (jetstream.StreamConfig, []drift.Difference) {
		return drift.KeyValue(live.Config, want, e.CreateOnly)
	})
}

// ObjectStore ensures a bucket of objects, as KeyValue does one of keys.
func (e Ensurer) ObjectStore(ctx context.Context, want, fresh jetstream.ObjectStoreConfig) error {
	if e.CreateOnly {
		want = fresh
	}
	_, err := e.stream(ctx, want.Bucket, drift.ObjectStoreStream(fresh), func(live *jetstream.StreamInfo) (jetstream.StreamConfig, []drift.Difference) {
		return drift.ObjectStore(live.Config, want, e.CreateOnly)
	})
	return err
}

func (e Ensurer) stream(
	ctx context.Context, target string, fresh jetstream.StreamConfig,
	compare func(*jetstream.StreamInfo) (jetstream.StreamConfig, []drift.Difference),
) (jetstream.Stream, error) {
	return ensure(ctx, e, thing[jetstream.Stream, jetstream.StreamConfig]{
		target: target,
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
	})
}

// Consumer ensures a consumer.
func (e Ensurer) Consumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	want.Metadata = e.numbered(want.Metadata)
	return ensure(ctx, e, thing[jetstream.Consumer, jetstream.ConsumerConfig]{
		target: stream + "/" + want.Name,
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
	})
}
