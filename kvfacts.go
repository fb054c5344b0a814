package nats

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// bucketFacts are what a handle knows of its bucket's stream: as the server last told.
type bucketFacts struct {
	asked   time.Time
	created time.Time
	ttl     time.Duration // of every value; 0 for none
	first   uint64        // sequence that is left
	keys    uint64        // with a message, be it the mark of a deletion
}

// factsFor is how long they are taken for true.
const factsFor = 3 * time.Second

// factsOf returns what info says, which was asked for at that time.
func factsOf(info *jetstream.StreamInfo, asked time.Time) *bucketFacts {
	return &bucketFacts{
		asked: asked, created: info.Created, ttl: info.Config.MaxAge,
		first: info.State.FirstSeq, keys: info.State.NumSubjects,
	}
}

// known returns facts that are not old, and asks when they are.
func (kv *KeyValue) known(ctx context.Context) (*bucketFacts, error) {
	if facts := kv.facts.Load(); time.Since(facts.asked) < factsFor {
		return facts, nil
	}
	var answer struct {
		jsapi.Refusal
		jetstream.StreamInfo
	}
	asked := time.Now()
	if err := kv.client.api.Ask(ctx, "STREAM.INFO."+kv.stream, struct{}{}, &answer); err != nil {
		return nil, err
	}
	facts := factsOf(&answer.StreamInfo, asked)
	kv.facts.Store(facts)
	return facts, nil
}
