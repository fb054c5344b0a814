package nats_test

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// fieldCase sets one field of a configuration, and what the server demands beside it.
type fieldCase[C any] struct {
	field string
	set   func(*C)
}

// checkFields sees to it that a field that upstream adds gets a case.
func checkFields[C any](t *testing.T, cases []fieldCase[C], without ...string) {
	t.Helper()
	missing := map[string]bool{}
	for field := range reflect.TypeFor[C]().Fields() {
		missing[field.Name] = !slices.Contains(without, field.Name)
	}
	for _, test := range cases {
		var cfg C
		test.set(&cfg)
		assert.False(t, reflect.ValueOf(cfg).FieldByName(test.field).IsZero(), "%s is set", test.field)
		missing[test.field] = false
	}
	maps.DeleteFunc(missing, func(_ string, missing bool) bool { return !missing })
	assert.Empty(t, missing)
}

// changes returns what tells which questions have changed the server's configurations since it was last called;
// some waits for one.
func changes(t *testing.T, s *natstest.Server) func(some bool) []string {
	t.Helper()
	nc := raw(t, s)
	seen := make(chan *natsgo.Msg, 100) // which is full when Flush returns, unlike a handler's
	for _, subject := range []string{"$JS.API.STREAM.UPDATE.*", "$JS.API.STREAM.CREATE.*", "$JS.API.CONSUMER.CREATE.ORDERS.>"} {
		_, err := nc.ChanSubscribe(subject, seen)
		require.NoError(t, err)
	}
	require.NoError(t, nc.Flush())
	return func(some bool) (all []string) {
		if some { // the answer may be faster
			eventually(t, "a question", func() bool { return len(seen) > 0 })
		}
		require.NoError(t, nc.Flush())
		for len(seen) > 0 {
			all = append(all, strings.TrimPrefix((<-seen).Subject, "$JS.API."))
		}
		return slices.Compact(all) // a question may be asked twice
	}
}

// ensureThrice creates what a service ensures at each of its starts. From the second one on there is
// nothing to change.
func ensureThrice(t *testing.T, changed func(some bool) []string, ensure func() error) {
	t.Helper()
	require.NoError(t, ensure())
	assert.Len(t, changed(true), 1, "it is created")
	for start := 2; start <= 3; start++ {
		require.NoError(t, ensure(), "start %d", start)
		assert.Empty(t, changed(false), "start %d", start)
	}
}

func TestEnsureEveryFieldOfAStreamAgain(t *testing.T) {
	t.Parallel()
	type C = jetstream.StreamConfig
	local := time.Now().In(time.FixedZone("", 3600))
	cases := []fieldCase[C]{
		{"Name", func(c *C) { c.Name = "S" }},
		{"Description", func(c *C) { c.Description = "text" }},
		{"Subjects", func(c *C) { c.Subjects = []string{"b.>", "a.*"} }},
		{"Retention", func(c *C) { c.Retention = jetstream.WorkQueuePolicy }},
		{"Retention", func(c *C) { c.Retention = jetstream.InterestPolicy }},
		{"MaxConsumers", func(c *C) { c.MaxConsumers = 5 }},
		{"MaxConsumers", func(c *C) { c.MaxConsumers = -3 }},
		{"MaxMsgs", func(c *C) { c.MaxMsgs = 5 }},
		{"MaxMsgs", func(c *C) { c.MaxMsgs = -7 }},
		{"MaxBytes", func(c *C) { c.MaxBytes = 5000 }},
		{"MaxBytes", func(c *C) { c.MaxBytes = -1 }},
		{"Discard", func(c *C) { c.Discard = jetstream.DiscardNew }},
		{"DiscardNewPerSubject", func(c *C) {
			c.DiscardNewPerSubject, c.Discard, c.MaxMsgsPerSubject = true, jetstream.DiscardNew, 1
		}},
		{"MaxAge", func(c *C) { c.MaxAge = time.Minute }},
		{"MaxMsgsPerSubject", func(c *C) { c.MaxMsgsPerSubject = 3 }},
		{"MaxMsgsPerSubject", func(c *C) { c.MaxMsgsPerSubject = -3 }},
		{"MaxMsgSize", func(c *C) { c.MaxMsgSize = 3000 }},
		{"MaxMsgSize", func(c *C) { c.MaxMsgSize = -3 }},
		{"Storage", func(c *C) { c.Storage = jetstream.MemoryStorage }},
		{"Replicas", func(c *C) { c.Replicas = 1 }},
		{"NoAck", func(c *C) { c.NoAck = true }},
		{"Duplicates", func(c *C) { c.Duplicates = time.Second }},
		{"Placement", func(c *C) { c.Placement = &jetstream.Placement{} }},
		{"Placement", func(c *C) { c.Placement = &jetstream.Placement{Tags: []string{}} }},
		{"Mirror", func(c *C) { c.Mirror = &jetstream.StreamSource{Name: "ORIGIN"} }},
		{"Mirror", func(c *C) { c.Mirror = &jetstream.StreamSource{Name: "ORIGIN", FilterSubject: "origin.a"} }},
		{"Mirror", func(c *C) { c.Mirror = &jetstream.StreamSource{Name: "ORIGIN", Domain: "hub"} }},
		{"Mirror", func(c *C) { c.Mirror = &jetstream.StreamSource{Name: "ORIGIN", OptStartTime: &local} }},
		{"Mirror", func(c *C) {
			c.Mirror = &jetstream.StreamSource{Name: "ORIGIN", External: &jetstream.ExternalStream{APIPrefix: "$JS.hub.API", DeliverPrefix: "deliver"}}
		}},
		{"Mirror", func(c *C) {
			c.Mirror = &jetstream.StreamSource{Name: "ORIGIN", SubjectTransforms: []jetstream.SubjectTransformConfig{{Source: "origin.a", Destination: ""}}}
		}},
		{"Sources", func(c *C) {
			c.Sources = []*jetstream.StreamSource{
				{Name: "Z", Domain: "hub"},
				{Name: "ORIGIN", OptStartTime: &local},
				{Name: "A", SubjectTransforms: []jetstream.SubjectTransformConfig{{Source: ">", Destination: "z.>"}}},
				{Name: "A", FilterSubject: "only"},
			}
		}},
		{"DenyDelete", func(c *C) { c.DenyDelete = true }},
		{"DenyPurge", func(c *C) { c.DenyPurge = true }},
		{"AllowRollup", func(c *C) { c.AllowRollup = true }},
		{"Compression", func(c *C) { c.Compression = jetstream.S2Compression }},
		{"FirstSeq", func(c *C) { c.FirstSeq = 100 }},
		{"SubjectTransform", func(c *C) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: ">", Destination: "into.>"}
		}},
		{"RePublish", func(c *C) { c.RePublish = &jetstream.RePublish{Destination: "again.>"} }},
		{"RePublish", func(c *C) {
			c.RePublish = &jetstream.RePublish{Source: ">", Destination: "more.>", HeadersOnly: true}
		}},
		{"AllowDirect", func(c *C) { c.AllowDirect = true }},
		{"MirrorDirect", func(c *C) { c.MirrorDirect, c.Mirror = true, &jetstream.StreamSource{Name: "ORIGIN"} }},
		{"MirrorDirect", func(c *C) { c.MirrorDirect, c.Mirror = true, &jetstream.StreamSource{Name: "ORIGIN", Domain: "hub"} }},
		{"ConsumerLimits", func(c *C) { c.ConsumerLimits.MaxAckPending = 50 }},
		{"ConsumerLimits", func(c *C) { c.ConsumerLimits.InactiveThreshold = time.Hour }},
		{"Metadata", func(c *C) { c.Metadata = map[string]string{"a": "1"} }},
		{"AllowMsgTTL", func(c *C) { c.AllowMsgTTL = true }},
		{"SubjectDeleteMarkerTTL", func(c *C) { c.SubjectDeleteMarkerTTL = time.Minute }},
		{"AllowMsgCounter", func(c *C) { c.AllowMsgCounter = true }},
		{"AllowAtomicPublish", func(c *C) { c.AllowAtomicPublish = true }},
		{"AllowMsgSchedules", func(c *C) { c.AllowMsgSchedules = true }},
		{"PersistMode", func(c *C) { c.PersistMode = jetstream.AsyncPersistMode }},
		{"AllowBatchPublish", func(c *C) { c.AllowBatchPublish = true }},
	}
	checkFields(t, cases, "Sealed", "Template") // a sealed one cannot be made, and templates are gone
	s := natstest.RunServer(t)
	client, changed := connect(t, s, nil), changes(t, s)
	ctx := context.Background()
	_, err := client.JetStream().CreateStream(ctx, C{Name: "ORIGIN", Subjects: []string{"origin.>"}})
	require.NoError(t, err)
	changed(true)
	for i, test := range cases { // one that sources another domain cannot be deleted for a minute
		t.Run(test.field, func(t *testing.T) {
			cfg := C{Name: fmt.Sprint("S", i)}
			test.set(&cfg)
			ensureThrice(t, changed, func() error { _, err := client.EnsureStream(ctx, &cfg); return err })
			before, err := client.GetStreamInfo(ctx, cfg.Name)
			require.NoError(t, err)
			live := before.Config // an administrator's
			live.ConsumerLimits = jetstream.StreamConsumerLimits{MaxAckPending: 77, InactiveThreshold: 2 * time.Hour}
			live.Metadata = map[string]string{"b": "2", "a": cfg.Metadata["a"]}
			if cfg.ConsumerLimits.MaxAckPending > 0 {
				live.ConsumerLimits.MaxAckPending = cfg.ConsumerLimits.MaxAckPending
			}
			if cfg.ConsumerLimits.InactiveThreshold > 0 {
				live.ConsumerLimits.InactiveThreshold = cfg.ConsumerLimits.InactiveThreshold
			}
			_, err = client.JetStream().UpdateStream(ctx, live)
			require.NoError(t, err)
			changed(true)
			cfg.Description = "changed"
			stream, err := client.EnsureStream(ctx, &cfg)
			require.NoError(t, err)
			assert.Len(t, changed(true), 1)
			got := stream.CachedInfo().Config
			assert.Equal(t, live.ConsumerLimits, got.ConsumerLimits)
			assert.Equal(t, "2", got.Metadata["b"])
			assert.Equal(t, live.Metadata["a"], got.Metadata["a"])
			assert.Equal(t, "changed", got.Description)
			got.Description, got.Metadata, got.ConsumerLimits = before.Config.Description, before.Config.Metadata, before.Config.ConsumerLimits
			assert.Equal(t, before.Config, got)
		})
	}
}

func TestEnsureEveryFieldOfAConsumerAgain(t *testing.T) {
	t.Parallel()
	type C = jetstream.ConsumerConfig
	local, past := time.Now().Add(time.Hour).In(time.FixedZone("", 3600)), time.Now().Add(-time.Hour)
	cases := []fieldCase[C]{
		{"Name", func(c *C) { c.Name = "c" }},
		{"Durable", func(c *C) { c.Durable = "c" }},
		{"Description", func(c *C) { c.Description = "text" }},
		{"DeliverPolicy", func(c *C) { c.DeliverPolicy = jetstream.DeliverNewPolicy }},
		{"OptStartSeq", func(c *C) { c.OptStartSeq, c.DeliverPolicy = 3, jetstream.DeliverByStartSequencePolicy }},
		{"OptStartTime", func(c *C) { c.OptStartTime, c.DeliverPolicy = &local, jetstream.DeliverByStartTimePolicy }},
		{"AckPolicy", func(c *C) { c.AckPolicy = jetstream.AckNonePolicy }},
		{"AckPolicy", func(c *C) { c.AckPolicy = jetstream.AckAllPolicy }},
		{"AckWait", func(c *C) { c.AckWait = time.Minute }},
		{"AckWait", func(c *C) { c.AckWait, c.AckPolicy = time.Minute, jetstream.AckNonePolicy }},
		{"MaxDeliver", func(c *C) { c.MaxDeliver = 5 }},
		{"MaxDeliver", func(c *C) { c.MaxDeliver = -5 }},
		{"BackOff", func(c *C) {
			c.BackOff, c.MaxDeliver, c.AckWait = []time.Duration{time.Second, time.Minute}, 5, time.Hour
		}},
		{"FilterSubject", func(c *C) { c.FilterSubject = "orders.a" }},
		{"ReplayPolicy", func(c *C) { c.ReplayPolicy = jetstream.ReplayOriginalPolicy }},
		{"SampleFrequency", func(c *C) { c.SampleFrequency = "50%" }},
		{"MaxWaiting", func(c *C) { c.MaxWaiting = 5 }},
		{"MaxWaiting", func(c *C) { c.MaxWaiting = -5 }},
		{"MaxAckPending", func(c *C) { c.MaxAckPending = 5 }},
		{"MaxAckPending", func(c *C) { c.MaxAckPending = -5 }},
		{"HeadersOnly", func(c *C) { c.HeadersOnly = true }},
		{"MaxRequestBatch", func(c *C) { c.MaxRequestBatch = 5 }},
		{"MaxRequestBatch", func(c *C) { c.MaxRequestBatch = -5 }},
		{"MaxRequestExpires", func(c *C) { c.MaxRequestExpires = time.Minute }},
		{"MaxRequestMaxBytes", func(c *C) { c.MaxRequestMaxBytes = 5000 }},
		{"InactiveThreshold", func(c *C) { c.InactiveThreshold = time.Hour }},
		{"InactiveThreshold", func(c *C) { c.InactiveThreshold = -1 }},
		{"Replicas", func(c *C) { c.Replicas = 1 }},
		{"MemoryStorage", func(c *C) { c.MemoryStorage = true }},
		{"FilterSubjects", func(c *C) { c.FilterSubjects = []string{"orders.b", "orders.a"} }},
		{"FilterSubjects", func(c *C) { c.FilterSubjects = []string{"orders.b"} }},
		{"Metadata", func(c *C) { c.Metadata = map[string]string{"a": "1"} }},
		{"PauseUntil", func(c *C) { c.PauseUntil = &local }},
		{"PauseUntil", func(c *C) { c.PauseUntil = &past }},
		{"PriorityPolicy", func(c *C) {
			c.PriorityPolicy, c.PriorityGroups = jetstream.PriorityPolicyOverflow, []string{"g"}
		}},
		{"PriorityGroups", func(c *C) {
			c.PriorityPolicy, c.PriorityGroups = jetstream.PriorityPolicyPrioritized, []string{"g"}
		}},
		{"PinnedTTL", func(c *C) {
			c.PinnedTTL, c.PriorityPolicy, c.PriorityGroups = time.Minute, jetstream.PriorityPolicyPinned, []string{"g"}
		}},
	}
	// A consumer that pulls has no rate, no subject and no flow.
	checkFields(t, cases, "RateLimit", "DeliverSubject", "DeliverGroup", "FlowControl", "IdleHeartbeat")
	s := natstest.RunServer(t)
	client, changed := connect(t, s, nil), changes(t, s)
	ctx := context.Background()
	newStream(t, client, 1)
	changed(true)
	for _, test := range cases {
		t.Run(test.field, func(t *testing.T) {
			cfg := C{Name: "c"}
			test.set(&cfg)
			ensureThrice(t, changed, func() error { _, err := client.EnsureConsumer(ctx, "ORDERS", &cfg); return err })
			before, err := client.GetConsumerInfo(ctx, "ORDERS", "c")
			require.NoError(t, err)
			cfg.Description = "changed"
			consumer, err := client.EnsureConsumer(ctx, "ORDERS", &cfg)
			require.NoError(t, err)
			assert.Len(t, changed(true), 1)
			want := before.Config
			got := consumer.CachedInfo().Config
			if want.Description = "changed"; want.PauseUntil != nil {
				utc := want.PauseUntil.UTC()
				want.PauseUntil = &utc
			}
			if len(want.FilterSubjects) == 1 { // which means the same
				want.FilterSubject, want.FilterSubjects = want.FilterSubjects[0], nil
			}
			assert.Equal(t, want, got)
			require.NoError(t, client.DeleteConsumer(ctx, "ORDERS", "c"))
		})
	}
}

// administer changes what no configuration of a bucket has.
func administer(t *testing.T, client *nats.Client, stream string) jetstream.StreamConfig {
	t.Helper()
	info, err := client.GetStreamInfo(context.Background(), stream)
	require.NoError(t, err)
	cfg := info.Config
	cfg.MaxMsgs, cfg.MaxConsumers = 1000, 50
	cfg.ConsumerLimits = jetstream.StreamConsumerLimits{MaxAckPending: 5000}
	cfg.AllowDirect = false
	if cfg.Mirror == nil && len(cfg.Sources) == 0 {
		cfg.Duplicates = min(cfg.Duplicates, 30*time.Second)
		cfg.AllowAtomicPublish = true
	}
	updated, err := client.JetStream().UpdateStream(context.Background(), cfg)
	require.NoError(t, err)
	return updated.CachedInfo().Config
}

func TestEnsureEveryFieldOfAKeyValueBucketAgain(t *testing.T) {
	t.Parallel()
	type C = jetstream.KeyValueConfig
	cases := []fieldCase[C]{
		{"Bucket", func(c *C) { c.Bucket = "b" }},
		{"Description", func(c *C) { c.Description = "text" }},
		{"MaxValueSize", func(c *C) { c.MaxValueSize = 1000 }},
		{"MaxValueSize", func(c *C) { c.MaxValueSize = -1 }},
		{"History", func(c *C) { c.History = 5 }},
		{"TTL", func(c *C) { c.TTL = time.Minute }},
		{"MaxBytes", func(c *C) { c.MaxBytes = 1 << 20 }},
		{"Storage", func(c *C) { c.Storage = jetstream.MemoryStorage }},
		{"Replicas", func(c *C) { c.Replicas = 1 }},
		{"Placement", func(c *C) { c.Placement = &jetstream.Placement{} }},
		{"RePublish", func(c *C) { c.RePublish = &jetstream.RePublish{Destination: "again.>"} }},
		{"Mirror", func(c *C) { c.Mirror = &jetstream.StreamSource{Name: "origin"} }},
		{"Mirror", func(c *C) { c.Mirror = &jetstream.StreamSource{Name: "KV_origin"} }},
		{"Mirror", func(c *C) { c.Mirror = &jetstream.StreamSource{Name: "origin", Domain: "hub"} }},
		{"Sources", func(c *C) { c.Sources = []*jetstream.StreamSource{{Name: "origin"}} }},
		{"Sources", func(c *C) {
			c.Sources = []*jetstream.StreamSource{{Name: "z", Domain: "hub"}, {Name: c.Bucket, Domain: "hub"}, {
				Name: "STREAM", SubjectTransforms: []jetstream.SubjectTransformConfig{{Source: ">", Destination: "$KV." + c.Bucket + ".>"}},
			}}
		}},
		{"Compression", func(c *C) { c.Compression = true }},
		{"Metadata", func(c *C) { c.Metadata = map[string]string{"a": "1"} }},
		{"LimitMarkerTTL", func(c *C) { c.LimitMarkerTTL = time.Minute }},
	}
	checkFields(t, cases)
	s := natstest.RunServer(t)
	client, changed := connect(t, s, nil), changes(t, s)
	ctx := context.Background()
	_, err := client.CreateKeyValue(ctx, "origin")
	require.NoError(t, err)
	changed(true)
	for i, test := range cases {
		t.Run(test.field, func(t *testing.T) {
			cfg := C{Bucket: fmt.Sprint("b", i)}
			test.set(&cfg)
			options, stream := nats.WithKeyValueConfig(func(c *C) { *c = cfg }), "KV_"+cfg.Bucket
			ensureThrice(t, changed, func() error { _, err := client.EnsureKeyValue(ctx, cfg.Bucket, options); return err })
			_, err := client.JetStream().CreateKeyValue(ctx, cfg)
			require.NoError(t, err, "it is as upstream makes it")
			want := administer(t, client, stream)
			_, err = client.CreateKeyValue(ctx, cfg.Bucket, options)
			require.NoError(t, err, "its configuration is the same")
			changed(true)
			_, err = client.EnsureKeyValue(ctx, cfg.Bucket, options, nats.WithKeyValueConfig(func(c *C) { c.Description = "changed" }))
			require.NoError(t, err)
			assert.Contains(t, changed(true), "STREAM.UPDATE."+stream)
			info, err := client.GetStreamInfo(ctx, stream)
			require.NoError(t, err)
			want.Description = "changed"
			assert.Equal(t, want, info.Config)
		})
	}
}

func TestEnsureEveryFieldOfAnObjectStoreAgain(t *testing.T) {
	t.Parallel()
	type C = jetstream.ObjectStoreConfig
	cases := []fieldCase[C]{
		{"Bucket", func(c *C) { c.Bucket = "b" }},
		{"Description", func(c *C) { c.Description = "text" }},
		{"TTL", func(c *C) { c.TTL = time.Minute }},
		{"MaxBytes", func(c *C) { c.MaxBytes = 1 << 20 }},
		{"MaxBytes", func(c *C) { c.MaxBytes = -1 }},
		{"Storage", func(c *C) { c.Storage = jetstream.MemoryStorage }},
		{"Replicas", func(c *C) { c.Replicas = 1 }},
		{"Placement", func(c *C) { c.Placement = &jetstream.Placement{} }},
		{"Compression", func(c *C) { c.Compression = true }},
		{"Metadata", func(c *C) { c.Metadata = map[string]string{"a": "1"} }},
	}
	checkFields(t, cases)
	s := natstest.RunServer(t)
	client, changed := connect(t, s, nil), changes(t, s)
	ctx := context.Background()
	for i, test := range cases {
		t.Run(test.field, func(t *testing.T) {
			cfg := C{Bucket: fmt.Sprint("b", i)}
			test.set(&cfg)
			options := nats.WithObjectStoreConfig(func(c *C) { *c = cfg })
			ensureThrice(t, changed, func() error { _, err := client.EnsureObjectStore(ctx, cfg.Bucket, options); return err })
			_, err := client.JetStream().CreateObjectStore(ctx, cfg)
			require.NoError(t, err, "it is as upstream makes it")
			want := administer(t, client, "OBJ_"+cfg.Bucket)
			_, err = client.CreateObjectStore(ctx, cfg.Bucket, options)
			require.NoError(t, err, "its configuration is the same")
			changed(true)
			_, err = client.EnsureObjectStore(ctx, cfg.Bucket, options, nats.WithObjectStoreConfig(func(c *C) { c.Description = "changed" }))
			require.NoError(t, err)
			assert.Contains(t, changed(true), "STREAM.UPDATE.OBJ_"+cfg.Bucket)
			info, err := client.GetStreamInfo(ctx, "OBJ_"+cfg.Bucket)
			require.NoError(t, err)
			want.Description = "changed"
			assert.Equal(t, want, info.Config)
		})
	}
}
