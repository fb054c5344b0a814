package drift

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is behind a pointer is shown, not where it lies.
func TestDifferencesPrintNoPointers(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := at.AddDate(100, 0, 0) // a pause that is over makes no difference
	_, found := Stream(
		jetstream.StreamConfig{Placement: &jetstream.Placement{Cluster: "east"}, Sources: []*jetstream.StreamSource{{Name: "A"}}, Subjects: []string{"a"}},
		jetstream.StreamConfig{
			Placement:        &jetstream.Placement{Tags: []string{"ssd"}},
			Sources:          []*jetstream.StreamSource{{Name: "B", SubjectTransforms: []jetstream.SubjectTransformConfig{{Source: "x", Destination: "y"}}}},
			Mirror:           &jetstream.StreamSource{Name: "M", OptStartTime: &at},
			RePublish:        &jetstream.RePublish{Source: ">", Destination: "copy.>"},
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: "a", Destination: "b"},
			ConsumerLimits:   jetstream.StreamConsumerLimits{MaxAckPending: 7},
			Metadata:         map[string]string{"k": "v"},
		}, &jetstream.StreamState{})
	_, more := Consumer(jetstream.ConsumerConfig{}, jetstream.ConsumerConfig{
		OptStartTime: &at, PauseUntil: &later, BackOff: []time.Duration{time.Second}, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	texts := map[string]string{}
	for _, d := range append(found, more...) {
		texts[d.Field] = d.String()
		assert.NotContains(t, d.String(), "0x", d.Field)
		assert.NotContains(t, d.String(), "nil", d.Field)
	}
	for field, want := range map[string]string{
		"Placement":        `Placement {"cluster":"east"} -> {"cluster":"","tags":["ssd"]}`,
		"Mirror":           `Mirror none -> {"name":"M","opt_start_time":"2026-01-02T03:04:05Z"} (cannot be changed)`,
		"SubjectTransform": `SubjectTransform none -> {"src":"a","dest":"b"}`,
		"ConsumerLimits":   `ConsumerLimits {} -> {"max_ack_pending":7} (refuses consumers that it allowed so far)`,
		"PauseUntil":       `PauseUntil none -> "2126-01-02T03:04:05Z"`,
		"BackOff":          "BackOff [] -> [1s]",
		"Metadata":         "Metadata map[] -> map[k:v]",
		"DeliverPolicy":    "DeliverPolicy all -> new (cannot be changed)",
	} {
		assert.Equal(t, want, texts[field])
	}
}

// A service may be built with a newer upstream than this package was: its new fields have no rule.
func TestAFieldWithoutARuleIsHarm(t *testing.T) {
	t.Parallel()
	type config struct{ New int }
	found := compare(&config{1}, config{1}, config{2}, nil, nil, false)
	require.Len(t, found, 1)
	assert.True(t, found[0].Changeable)
	assert.True(t, found[0].Shrinks)
	assert.True(t, Forbids(found, false))
	assert.False(t, Forbids(found, true))
}

func TestExactComparesWhatIsLeftAtZero(t *testing.T) {
	t.Parallel()
	live := KeyValueStream(jetstream.KeyValueConfig{Bucket: "b", TTL: time.Hour})
	live.Metadata = map[string]string{"_nats.level": "1"}
	want := jetstream.KeyValueConfig{Bucket: "b"}
	_, found := KeyValue(live, want, false)
	assert.Empty(t, found)
	_, found = KeyValue(live, want, true)
	require.Len(t, found, 1)
	assert.Equal(t, "TTL 1h0m0s -> 0s", found[0].String())
	store := ObjectStoreStream(jetstream.ObjectStoreConfig{Bucket: "b"})
	store.Metadata = live.Metadata
	_, found = ObjectStore(store, jetstream.ObjectStoreConfig{Bucket: "b", Replicas: 1}, true)
	assert.Empty(t, found)
}

// The server tells two sources of one stream apart by their filters, transforms and domains.
func TestSourcesOfOneStreamAreSeveral(t *testing.T) {
	t.Parallel()
	one, two := &jetstream.StreamSource{Name: "A", FilterSubject: "one"}, &jetstream.StreamSource{Name: "A", FilterSubject: "two"}
	far := &jetstream.StreamSource{Name: "A", FilterSubject: "one", Domain: "hub"}
	sources := func(all ...*jetstream.StreamSource) jetstream.StreamConfig {
		return jetstream.StreamConfig{Sources: all}
	}
	_, found := Stream(sources(one, two), sources(two, one), nil)
	assert.Empty(t, found)
	_, found = Stream(sources(one), sources(one, two, far), nil)
	assert.False(t, Forbids(found, false), "more is granted")
	for _, fewer := range []jetstream.StreamConfig{sources(one), sources(two, far)} {
		merged, found := Stream(sources(one, two), fewer, nil)
		require.Len(t, found, 1)
		assert.Equal(t, "no longer takes from A", found[0].Effect)
		assert.Len(t, merged.Sources, len(fewer.Sources))
	}
}
