package drift_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
)

func texts(found []drift.Difference) (all []string) {
	for _, d := range found {
		all = append(all, d.String())
	}
	return all
}

func TestStreamFields(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the age of a message is exact
		type C = jetstream.StreamConfig
		type S = jetstream.StreamState
		const none, grows, limits = "", "MaxMsgs 10 -> 20", jetstream.LimitsPolicy
		here, far := &jetstream.StreamSource{Name: "M"}, &jetstream.StreamSource{Name: "M", Domain: "far"}
		for _, test := range []struct {
			live, want C
			state      S
			text       string
		}{
			{C{}, C{Description: "x"}, S{}, `Description "" -> x`},
			{C{MaxMsgs: 10}, C{MaxMsgs: 20}, S{}, grows},
			{C{MaxMsgs: 10}, C{MaxMsgs: -1}, S{}, "MaxMsgs 10 -> -1"},
			{C{MaxMsgs: 10}, C{MaxMsgs: 5}, S{Msgs: 5}, "MaxMsgs 10 -> 5 (deletes messages sooner)"},
			{C{MaxMsgs: 10}, C{MaxMsgs: 5}, S{Msgs: 6}, "MaxMsgs 10 -> 5 (deletes 1 messages)"},
			{C{MaxMsgs: -1}, C{MaxMsgs: 5}, S{Msgs: 7}, "MaxMsgs -1 -> 5 (deletes 2 messages)"},
			{C{}, C{MaxBytes: 5}, S{Bytes: 8}, "MaxBytes 0 -> 5 (deletes 3 bytes of messages)"},
			{C{}, C{MaxAge: time.Hour}, S{}, "MaxAge 0s -> 1h0m0s (deletes messages sooner)"},
			{C{}, C{MaxAge: time.Hour}, S{Msgs: 1, FirstTime: time.Now().Add(-time.Hour)}, "MaxAge 0s -> 1h0m0s (deletes messages sooner)"},
			{C{}, C{MaxAge: time.Hour}, S{Msgs: 1, FirstTime: time.Now().Add(-2 * time.Hour)}, "MaxAge 0s -> 1h0m0s (deletes messages sooner, the oldest of 2h0m0s at once)"},
			{C{Retention: limits}, C{Retention: jetstream.InterestPolicy}, S{}, "Retention Limits -> Interest (deletes what every consumer has acknowledged)"},
			{C{Retention: jetstream.InterestPolicy}, C{Retention: jetstream.WorkQueuePolicy}, S{}, "Retention Interest -> WorkQueue (cannot be changed)"},
			{
				C{ConsumerLimits: jetstream.StreamConsumerLimits{InactiveThreshold: 1, MaxAckPending: 2}},
				C{ConsumerLimits: jetstream.StreamConsumerLimits{MaxAckPending: 3}}, S{},
				`ConsumerLimits {"inactive_threshold":1,"max_ack_pending":2} -> {"inactive_threshold":1,"max_ack_pending":3}`,
			},
			{C{Mirror: here}, C{MirrorDirect: true}, S{}, none}, // its server decides
			{C{Mirror: far}, C{MirrorDirect: true}, S{}, "MirrorDirect false -> true"},
			{C{}, C{MirrorDirect: true}, S{}, "MirrorDirect false -> true"},
		} {
			merged, found := drift.Stream(test.live, test.want, &test.state)
			if test.text == none {
				assert.Empty(t, found)
				assert.Equal(t, test.live, merged)
				continue
			}
			assert.Equal(t, []string{test.text}, texts(found))
		}
		_, found := drift.Stream(C{Retention: jetstream.WorkQueuePolicy}, C{Retention: jetstream.InterestPolicy}, nil)
		require.Len(t, found, 1)
		assert.False(t, found[0].Changeable)
	})
}

// The server remembers message IDs no longer than messages: what nobody set follows, what somebody set does not.
func TestDuplicatesFollowTheAge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ age, want, merged time.Duration }{
		{0, 0, time.Minute}, {time.Second, 0, time.Second}, {time.Hour, 0, time.Minute}, {time.Second, time.Minute, time.Minute},
	} {
		merged, _ := drift.Stream(jetstream.StreamConfig{Duplicates: time.Minute}, jetstream.StreamConfig{MaxAge: test.age, Duplicates: test.want}, &jetstream.StreamState{})
		assert.Equal(t, test.merged, merged.Duplicates, "%+v", test)
	}
}

func TestBucketFields(t *testing.T) {
	t.Parallel()
	type C = jetstream.StreamConfig
	for _, test := range []struct {
		live  C
		want  jetstream.KeyValueConfig
		ttl   bool // the stream allows messages to have one
		texts []string
	}{
		{C{}, jetstream.KeyValueConfig{}, false, nil},
		{C{AllowMsgTTL: true}, jetstream.KeyValueConfig{}, true, nil},
		{C{}, jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute}, true, []string{"LimitMarkerTTL 0s -> 1m0s"}},
		{C{SubjectDeleteMarkerTTL: time.Hour}, jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute}, true, []string{"LimitMarkerTTL 1h0m0s -> 1m0s (forgets deletions sooner)"}},
		{C{Sealed: true}, jetstream.KeyValueConfig{}, false, nil},
		{C{Sealed: true}, jetstream.KeyValueConfig{Description: "x"}, false, []string{`Description "" -> x`, "Sealed true -> false (cannot be changed)"}},
	} {
		test.live.Name = "KV_"
		merged, found := drift.KeyValue(test.live, test.want, false)
		assert.Equal(t, test.ttl, merged.AllowMsgTTL, "%+v", test)
		assert.Equal(t, test.texts, texts(found))
	}
}

func TestConsumerFields(t *testing.T) {
	t.Parallel()
	type C = jetstream.ConsumerConfig
	over := time.Now().Add(-time.Hour)
	steps, several := []time.Duration{time.Second, time.Minute}, []string{"a", "b"}
	for _, test := range []struct {
		live, want, merged C
		texts              []string
	}{
		{C{FilterSubject: "a"}, C{}, C{FilterSubject: "a"}, nil},
		{C{FilterSubject: "a"}, C{FilterSubjects: []string{"a"}}, C{FilterSubject: "a"}, nil},
		{C{FilterSubject: "b"}, C{FilterSubjects: []string{"a"}}, C{FilterSubject: "a"}, []string{"FilterSubjects [b] -> [a] (no longer delivers b)"}},
		{C{}, C{FilterSubject: "a"}, C{FilterSubject: "a"}, []string{"FilterSubjects [] -> [a] (no longer delivers >)"}},
		{C{FilterSubject: "a"}, C{FilterSubjects: several}, C{FilterSubjects: several}, []string{"FilterSubjects [a] -> [a b]"}},
		{C{BackOff: steps, AckWait: time.Second}, C{BackOff: steps, AckWait: time.Hour}, C{BackOff: steps, AckWait: time.Second}, nil},
		{C{}, C{BackOff: []time.Duration{}}, C{}, nil},
		{C{}, C{PauseUntil: &over}, C{}, nil},
		{C{}, C{DeliverSubject: "d"}, C{DeliverSubject: "d"}, []string{`DeliverSubject "" -> d (cannot be changed)`}},
		{C{DeliverSubject: "d"}, C{DeliverSubject: "e"}, C{DeliverSubject: "e"}, []string{"DeliverSubject d -> e"}},
	} {
		merged, found := drift.Consumer(test.live, test.want)
		assert.Equal(t, test.texts, texts(found))
		assert.Equal(t, test.merged, merged)
	}
}
