package ensure

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

const (
	// generationKey is where the metadata has the generation.
	generationKey = "isa_cloud.generation"
	// attempts bounds how often a change by somebody else, between the look and the deed, is met with another look.
	attempts = 32
	// settlePause is between two looks at what the server goes on with.
	settlePause = 100 * time.Millisecond
)

// numbered returns metadata with the generation, where there is one.
func (o *Options) numbered(metadata map[string]string) map[string]string {
	if o.Generation == 0 {
		return metadata
	}
	own := make(map[string]string, len(metadata)+1)
	maps.Copy(own, metadata)
	own[generationKey] = strconv.FormatUint(o.Generation, 10)
	return own
}

// outdated tells whether what the server has is of a later generation.
func (o *Options) outdated(metadata map[string]string) bool {
	live, err := strconv.ParseUint(metadata[generationKey], 10, 64)
	return err == nil && live > o.Generation
}

// thing is something of the server's, of which upstream has a handle H, that has the configuration C.
type thing[H, C any] struct {
	target          string
	look, create    func(context.Context, jetstream.JetStream) (H, error)
	change          func(context.Context, jetstream.JetStream, C) (H, error)
	compare         func(H) (C, []drift.Difference)
	about           func(H) (metadata map[string]string, replicas int, cluster *jetstream.ClusterInfo)
	missing, exists error
}

// ensure creates what is not there, or changes what is.
func ensure[H, C any](ctx context.Context, e Ensurer, t thing[H, C]) (H, error) {
	var none H
	var kept []drift.Difference // what the server writes in its own way
	creates := e.CreateOnly
	for range attempts {
		act := t.look
		if creates {
			act = t.create
		}
		live, err := jsapi.Look(ctx, e.API, act)
		switch {
		case creates && errors.Is(err, t.exists), !creates && errors.Is(err, t.missing):
			creates = !creates // somebody may be faster
			continue
		case err != nil:
			return none, err
		case creates:
			return t.settle(ctx, e, live)
		}
		metadata, _, _ := t.about(live)
		if e.outdated(metadata) {
			e.Log.Info("a newer release has configured it; left as it is", "target", t.target)
			return live, nil
		}
		merged, found := t.compare(live)
		switch {
		case len(found) == 0, reflect.DeepEqual(found, kept):
			return t.settle(ctx, e, live)
		case e.CreateOnly, drift.Forbids(found, e.Shrink):
			return none, &DriftError{found}
		}
		if live, err = jsapi.Look(ctx, e.API, func(ctx context.Context, js jetstream.JetStream) (H, error) {
			return t.change(ctx, js, merged)
		}); err != nil {
			return none, err
		}
		_, kept = t.compare(live)
		// The next round reads it back: another pod may have written at the same moment.
	}
	return none, fault.Joined{fault.ErrConflict, errors.New("others keep changing it")}
}

// settle waits until the server is done with live, or says that it is not.
func (t *thing[H, C]) settle(ctx context.Context, e Ensurer, live H) (H, error) {
	for {
		_, replicas, cluster := t.about(live)
		state := "begun"
		switch {
		case cluster == nil:
			return live, nil
		case cluster.Desired == nil && 1+len(cluster.Replicas) >= replicas: // a server that has just begun may tell of neither
			return live, nil
		case cluster.Desired != nil && cluster.Desired.Status != nil:
			state = cluster.Desired.Status.Description
		}
		if !e.Settled {
			e.Log.Info("the server goes on placing the replicas", "target", t.target, "state", state)
			return live, nil
		}
		pause.Sleep(ctx, settlePause)
		var err error
		if live, err = jsapi.Look(ctx, e.API, t.look); err != nil {
			var none H
			return none, fault.Joined{err, errors.New("the server goes on placing the replicas: " + state)}
		}
	}
}
