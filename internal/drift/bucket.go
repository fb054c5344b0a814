package drift

import (
	"cmp"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The streams of buckets (ADR-8, ADR-20), and the subjects in them.
const (
	keyValuePrefix    = "KV_"
	objectStorePrefix = "OBJ_"
	duplicates        = 2 * time.Minute // for which a bucket's stream knows what it has stored, if not less
)

func keySubjects(bucket string) string { return "$KV." + bucket + ".>" }

// keyValue returns what a bucket's configuration sets in the configuration of its stream.
func keyValue(cfg jetstream.KeyValueConfig) jetstream.StreamConfig {
	own := jetstream.StreamConfig{
		Name: keyValuePrefix + cfg.Bucket, Description: cfg.Description, MaxMsgSize: cfg.MaxValueSize,
		MaxMsgsPerSubject: int64(cfg.History), MaxAge: cfg.TTL, MaxBytes: cfg.MaxBytes, Storage: cfg.Storage,
		Replicas: cfg.Replicas, Placement: cfg.Placement, RePublish: cfg.RePublish, Compression: compression(cfg.Compression),
		Metadata: cfg.Metadata, SubjectDeleteMarkerTTL: cfg.LimitMarkerTTL,
	}
	if cfg.Mirror != nil {
		mirror := *cfg.Mirror
		mirror.Name = keyValuePrefix + strings.TrimPrefix(mirror.Name, keyValuePrefix)
		own.Mirror = &mirror
		return own
	}
	for _, source := range cfg.Sources {
		if source != nil && len(source.SubjectTransforms) == 0 { // else it may be any stream
			bucket, copied := strings.TrimPrefix(source.Name, keyValuePrefix), *source
			copied.Name = keyValuePrefix + bucket
			if source.External == nil || bucket != cfg.Bucket {
				copied.SubjectTransforms = []jetstream.SubjectTransformConfig{{Source: keySubjects(bucket), Destination: keySubjects(cfg.Bucket)}}
			}
			source = &copied
		}
		own.Sources = append(own.Sources, source)
	}
	return own
}

// KeyValueStream returns the stream of a new bucket, as upstream makes it.
func KeyValueStream(cfg jetstream.KeyValueConfig) jetstream.StreamConfig {
	own := keyValue(cfg)
	if own.MirrorDirect = own.Mirror != nil; !own.MirrorDirect {
		own.Subjects = []string{keySubjects(cfg.Bucket)}
	}
	own.MaxMsgsPerSubject = max(own.MaxMsgsPerSubject, 1)
	own.MaxMsgs, own.MaxConsumers, own.MaxMsgSize = -1, -1, cmp.Or(own.MaxMsgSize, -1)
	own.DenyDelete, own.Duplicates, own.AllowMsgTTL = true, duplicates, own.SubjectDeleteMarkerTTL > 0
	if own.MaxAge > 0 {
		own.Duplicates = min(own.MaxAge, duplicates)
	}
	return bucketStream(own)
}

// objectStore returns what a bucket's configuration sets in the configuration of its stream.
func objectStore(cfg jetstream.ObjectStoreConfig) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: objectStorePrefix + cfg.Bucket, Description: cfg.Description, MaxAge: cfg.TTL, MaxBytes: cfg.MaxBytes, Storage: cfg.Storage,
		Replicas: cfg.Replicas, Placement: cfg.Placement, Compression: compression(cfg.Compression), Metadata: cfg.Metadata,
	}
}

// ObjectStoreStream returns the stream of a new bucket of objects, as upstream makes it.
func ObjectStoreStream(cfg jetstream.ObjectStoreConfig) jetstream.StreamConfig {
	own := objectStore(cfg)
	own.Subjects = []string{"$O." + cfg.Bucket + ".C.>", "$O." + cfg.Bucket + ".M.>"}
	return bucketStream(own)
}

// bucketStream adds what both kinds of buckets have in common.
func bucketStream(own jetstream.StreamConfig) jetstream.StreamConfig {
	own.Replicas, own.MaxBytes = max(own.Replicas, 1), cmp.Or(own.MaxBytes, -1)
	own.Discard, own.AllowRollup, own.AllowDirect = jetstream.DiscardNew, true, true
	return own
}

func compression(s2 bool) jetstream.StoreCompression {
	if s2 {
		return jetstream.S2Compression
	}
	return jetstream.NoCompression
}
