package drift

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// rule says what changing one field from live to want would do: the harm, empty when it does none,
// and whether the server allows it.
type rule func(live, want any, state *jetstream.StreamState) (harm string, changeable bool)

// streamRules has a rule for each field of a stream's configuration (nats-server, configUpdateCheck
// in server/stream.go).
var streamRules = map[string]rule{
	"Name":        fixed,
	"Description": harmless,
	"Subjects": func(live, want any, _ *jetstream.StreamState) (string, bool) {
		return listed("no longer stores ", uncovered(want.([]string), live.([]string))), true
	},
	"Retention": func(live, want any, _ *jetstream.StreamState) (string, bool) {
		if live == jetstream.WorkQueuePolicy || want == jetstream.WorkQueuePolicy {
			return "", false
		}
		return "deletes what every consumer has acknowledged", true
	},
	"MaxConsumers": lower("refuses more consumers"),
	"MaxMsgs": bounds(func(want int64, state *jetstream.StreamState) string {
		return deletes(int64(state.Msgs)-want, "messages")
	}),
	"MaxBytes": bounds(func(want int64, state *jetstream.StreamState) string {
		return deletes(int64(state.Bytes)-want, "bytes of messages")
	}),
	"Discard":              harmless,
	"DiscardNewPerSubject": harmless,
	"MaxAge": bounds(func(want int64, state *jetstream.StreamState) string {
		age := time.Since(state.FirstTime).Round(time.Second)
		if state.Msgs > 0 && age > time.Duration(want) {
			return fmt.Sprintf("deletes messages sooner, the oldest of %v at once", age)
		}
		return "deletes messages sooner"
	}),
	"MaxMsgsPerSubject":      lower("deletes messages beyond the limit of their subject"),
	"MaxMsgSize":             lower("refuses messages that it took so far"),
	"Storage":                fixed,
	"Replicas":               lower("keeps fewer copies"),
	"NoAck":                  loses("acknowledges no publish any more"),
	"Duplicates":             lower("forgets message IDs sooner"),
	"Placement":              harmless,
	"Mirror":                 fixed,
	"Sources":                sourcesRule,
	"Sealed":                 loses("takes no message any more, for good"),
	"DenyDelete":             harmless,
	"DenyPurge":              harmless,
	"AllowRollup":            harmless,
	"Compression":            harmless,
	"FirstSeq":               fixed,
	"SubjectTransform":       harmless,
	"RePublish":              harmless,
	"AllowDirect":            harmless,
	"MirrorDirect":           harmless,
	"ConsumerLimits":         consumerLimitsRule,
	"Metadata":               harmless,
	"Template":               fixed,
	"AllowMsgTTL":            harmless,
	"SubjectDeleteMarkerTTL": harmless,
	"AllowMsgCounter":        fixed,
	"AllowAtomicPublish":     harmless,
	"AllowMsgSchedules":      harmless,
	"PersistMode":            fixed,
	"AllowBatchPublish":      harmless,
}

// consumerRules has a rule for each field of a consumer's configuration (nats-server,
// checkNewConsumerConfig in server/consumer.go).
var consumerRules = map[string]rule{
	"Name":               fixed,
	"Durable":            fixed,
	"Description":        harmless,
	"DeliverPolicy":      fixed,
	"OptStartSeq":        fixed,
	"OptStartTime":       fixed,
	"AckPolicy":          fixed,
	"AckWait":            lower("delivers again sooner"),
	"MaxDeliver":         lower("gives up on a message sooner"),
	"BackOff":            harmless,
	"FilterSubject":      fixed, // ensure compares FilterSubjects alone
	"ReplayPolicy":       fixed,
	"RateLimit":          lower("delivers more slowly"),
	"SampleFrequency":    harmless,
	"MaxWaiting":         fixed,
	"MaxAckPending":      lower("lets fewer messages wait for their acknowledgement"),
	"HeadersOnly":        loses("delivers no payloads any more"),
	"MaxRequestBatch":    lower("refuses larger pulls"),
	"MaxRequestExpires":  lower("refuses longer pulls"),
	"MaxRequestMaxBytes": lower("refuses larger pulls"),
	"InactiveThreshold":  lower("is dropped with its progress when nobody pulls for as long"),
	"Replicas":           lower("keeps fewer copies"),
	"MemoryStorage":      fixed,
	"FilterSubjects": func(live, want any, _ *jetstream.StreamState) (string, bool) {
		old := live.([]string)
		if len(old) == 0 {
			old = []string{">"}
		}
		return listed("no longer delivers ", uncovered(want.([]string), old)), true
	},
	"Metadata":       harmless,
	"PauseUntil":     harmless,
	"PriorityPolicy": harmless,
	"PinnedTTL":      harmless,
	"PriorityGroups": harmless,
	"DeliverSubject": func(live, _ any, _ *jetstream.StreamState) (string, bool) { return "", live != "" }, // a pull consumer stays one
	"DeliverGroup":   harmless,
	"FlowControl":    fixed,
	"IdleHeartbeat":  fixed,
}

// keyValueRules has a rule for each field of a stream that the configuration of a bucket sets.
var keyValueRules = map[string]rule{
	"Name":                   fixed,
	"Description":            harmless,
	"MaxMsgSize":             lower("refuses values that it took so far"),
	"MaxMsgsPerSubject":      lower("deletes values beyond the limit of their key"),
	"MaxAge":                 lower("deletes values sooner"),
	"MaxBytes":               lower("refuses values sooner"),
	"Storage":                fixed,
	"Replicas":               lower("keeps fewer copies"),
	"Placement":              harmless,
	"RePublish":              harmless,
	"Mirror":                 fixed,
	"Sources":                sourcesRule,
	"Compression":            harmless,
	"Metadata":               harmless,
	"SubjectDeleteMarkerTTL": marksRule,
}

// keyValueNames has the fields that a bucket's configuration names in another way.
var keyValueNames = map[string]string{
	"Name": "Bucket", "MaxMsgSize": "MaxValueSize", "MaxMsgsPerSubject": "History", "MaxAge": "TTL", "SubjectDeleteMarkerTTL": "LimitMarkerTTL",
}

// objectStoreRules has the same for a bucket of objects.
var objectStoreRules = map[string]rule{
	"Name":        fixed,
	"Description": harmless,
	"MaxAge":      lower("deletes objects sooner"),
	"MaxBytes":    lower("refuses objects sooner"),
	"Storage":     fixed,
	"Replicas":    lower("keeps fewer copies"),
	"Placement":   harmless,
	"Compression": harmless,
	"Metadata":    harmless,
}

var objectStoreNames = map[string]string{"Name": "Bucket", "MaxAge": "TTL"}

func harmless(_, _ any, _ *jetstream.StreamState) (string, bool) { return "", true }

func fixed(_, _ any, _ *jetstream.StreamState) (string, bool) { return "", false }

func loses(harm string) rule {
	return func(_, _ any, _ *jetstream.StreamState) (string, bool) { return harm, true }
}

// bounds is the rule of a number that bounds something. Zero and below mean that nothing does.
func bounds(harm func(want int64, state *jetstream.StreamState) string) rule {
	return func(live, want any, state *jetstream.StreamState) (string, bool) {
		if old, now := number(live), number(want); now > 0 && (old <= 0 || now < old) {
			return harm(now, state), true
		}
		return "", true
	}
}

// lower is the rule of a limit whose harm does not depend on what is stored.
func lower(harm string) rule {
	return bounds(func(int64, *jetstream.StreamState) string { return harm })
}

func number(v any) int64 {
	value := reflect.ValueOf(v)
	if value.CanUint() {
		return int64(value.Uint())
	}
	return value.Int()
}

func deletes(n int64, what string) string {
	if n <= 0 {
		return "deletes " + what + " sooner"
	}
	return fmt.Sprintf("deletes %d %s", n, what)
}

func listed(harm string, items []string) string {
	if len(items) == 0 {
		return ""
	}
	return harm + strings.Join(items, " ")
}

// marksRule knows that deletions have no marks that go until there are any.
func marksRule(live, want any, state *jetstream.StreamState) (string, bool) {
	if number(live) <= 0 {
		return "", true
	}
	return lower("forgets deletions sooner")(live, want, state)
}

func sourcesRule(live, want any, _ *jetstream.StreamState) (string, bool) {
	kept := make(map[string]bool)
	for _, source := range want.([]*jetstream.StreamSource) {
		kept[sourceName(source)] = true
	}
	var lost []string
	for _, source := range live.([]*jetstream.StreamSource) {
		if !kept[sourceName(source)] {
			lost = append(lost, source.Name)
		}
	}
	return listed("no longer takes from ", lost), true
}

func consumerLimitsRule(live, want any, state *jetstream.StreamState) (string, bool) {
	old, now := live.(jetstream.StreamConsumerLimits), want.(jetstream.StreamConsumerLimits)
	check := lower("refuses consumers that it allowed so far")
	for _, pair := range [][2]any{{old.InactiveThreshold, now.InactiveThreshold}, {old.MaxAckPending, now.MaxAckPending}} {
		if harm, _ := check(pair[0], pair[1], state); harm != "" {
			return harm, true
		}
	}
	return "", true
}

// uncovered returns those of inner that none of outer covers.
func uncovered(outer, inner []string) []string {
	return slices.DeleteFunc(slices.Clone(inner), func(name string) bool {
		return slices.ContainsFunc(outer, func(pattern string) bool { return subject.Covers(pattern, name) })
	})
}
