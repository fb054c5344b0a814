package nats

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// KeyValueOption changes the configuration of a bucket that is created.
type KeyValueOption func(*jetstream.KeyValueConfig)

// WithKeyValueConfig lets set change the whole of upstream's configuration, for what the other options
// do not cover. The bucket's name is filled in already and stays.
func WithKeyValueConfig(set func(*jetstream.KeyValueConfig)) KeyValueOption {
	return KeyValueOption(set)
}

// WithKeyHistory keeps the last n values of each key, 64 at most. The default is 1.
func WithKeyHistory(n uint8) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.History = n }
}

// WithKeyValueTTL deletes every value d after it was written, without a mark: watchers do not hear of
// it, unless WithKeyTTLs has the server leave marks. The default, 0, keeps values for ever.
func WithKeyValueTTL(d time.Duration) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.TTL = d }
}

// WithKeyTTLs lets single keys have a time to live, as jetstream.KeyTTL gives it to Create, and as
// Lock and Elect need it. A key that has expired leaves a mark for the time of marks, at least a
// second, so that watchers hear of it. It needs server 2.11.
func WithKeyTTLs(marks time.Duration) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.LimitMarkerTTL = marks }
}

// WithKeyValueReplicas stores the bucket on n servers of the cluster: 1, 3 or 5. The default is
// Config.DefaultStreamReplicas.
func WithKeyValueReplicas(n int) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.Replicas = n }
}

// WithKeyValueStorage stores the bucket in files or in memory. The default is
// Config.DefaultStorageType.
func WithKeyValueStorage(storage jetstream.StorageType) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.Storage = storage }
}

// WithKeyValueCompression compresses the bucket's files.
func WithKeyValueCompression() KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.Compression = true }
}
