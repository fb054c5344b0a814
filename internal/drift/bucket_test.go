package drift_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
)

// The streams of buckets are the ones that upstream makes.
func TestKeyValueStream(t *testing.T) {
	t.Parallel()
	plain := jetstream.StreamConfig{
		Name: "KV_B", Subjects: []string{"$KV.B.>"}, MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxConsumers: -1, MaxMsgSize: -1, MaxBytes: -1, Replicas: 1,
		Discard: jetstream.DiscardNew, AllowRollup: true, AllowDirect: true, DenyDelete: true, Duplicates: 2 * time.Minute,
	}
	assert.Equal(t, plain, drift.KeyValueStream(jetstream.KeyValueConfig{Bucket: "B"}))

	limited := plain
	limited.MaxAge, limited.Duplicates, limited.MaxMsgsPerSubject, limited.MaxMsgSize, limited.MaxBytes = time.Minute, time.Minute, 5, 6, 7
	limited.SubjectDeleteMarkerTTL, limited.AllowMsgTTL, limited.Replicas, limited.Compression = time.Second, true, 3, jetstream.S2Compression
	assert.Equal(t, limited, drift.KeyValueStream(jetstream.KeyValueConfig{
		Bucket: "B", TTL: time.Minute, History: 5, MaxValueSize: 6, MaxBytes: 7, LimitMarkerTTL: time.Second, Replicas: 3, Compression: true,
	}))

	mirror := plain
	mirror.Subjects, mirror.Mirror, mirror.MirrorDirect = nil, &jetstream.StreamSource{Name: "KV_A"}, true
	for _, name := range []string{"A", "KV_A"} {
		assert.Equal(t, mirror, drift.KeyValueStream(jetstream.KeyValueConfig{Bucket: "B", Mirror: &jetstream.StreamSource{Name: name}}))
	}

	transform := func(from string) []jetstream.SubjectTransformConfig {
		return []jetstream.SubjectTransformConfig{{Source: "$KV." + from + ".>", Destination: "$KV.B.>"}}
	}
	external := &jetstream.ExternalStream{APIPrefix: "$JS.x.API"}
	own := []jetstream.SubjectTransformConfig{{Source: "x"}}
	sourced := plain
	sourced.Sources = []*jetstream.StreamSource{
		nil, {Name: "KV_A", SubjectTransforms: transform("A")}, {Name: "KV_B", SubjectTransforms: transform("B")}, {Name: "KV_B", External: external},
		{Name: "KV_A", External: external, SubjectTransforms: transform("A")}, {Name: "S", SubjectTransforms: own},
	}
	assert.Equal(t, sourced, drift.KeyValueStream(jetstream.KeyValueConfig{Bucket: "B", Sources: []*jetstream.StreamSource{
		nil, {Name: "A"}, {Name: "KV_B"}, {Name: "B", External: external}, {Name: "A", External: external}, {Name: "S", SubjectTransforms: own},
	}}))
}
