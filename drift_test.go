package nats_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What a *DriftError says by itself, as errors.As finds it, names the call and a remedy that it has.
func TestDriftErrorNamesItsRemedy(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateKeyValue(ctx, "conf", nats.WithKeyHistory(5), nats.WithKeyValueTTL(time.Hour))
	require.NoError(t, err)
	_, err = client.CreateObjectStore(ctx, "files", nats.WithObjectStoreTTL(time.Hour))
	require.NoError(t, err)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxAge: time.Hour})
	require.NoError(t, err)

	ensureFiles := func(opts ...nats.ObjectStoreOption) error {
		return second(client.EnsureObjectStore(ctx, "files", opts...))
	}
	createFiles := func(opts ...nats.ObjectStoreOption) error {
		return second(client.CreateObjectStore(ctx, "files", opts...))
	}
	ensureConf := func(opts ...nats.KeyValueOption) error { return second(client.EnsureKeyValue(ctx, "conf", opts...)) }
	createConf := func(opts ...nats.KeyValueOption) error { return second(client.CreateKeyValue(ctx, "conf", opts...)) }
	const anew = "it has to be deleted and created anew, or the configuration adapted"
	for _, test := range []struct {
		err            error
		bucket, prefix string
		remedy         string
	}{
		{createFiles(nats.WithObjectStoreTTL(2 * time.Hour)), "files", `create object store "files": `, "EnsureObjectStore adapts it"},
		{createFiles(nats.WithObjectStoreTTL(time.Minute)), "files", `create object store "files": `, "UpdateStream of OBJ_files goes ahead"},
		{ensureFiles(nats.WithObjectStoreTTL(time.Minute)), "files", `ensure object store "files": `, "UpdateStream of OBJ_files goes ahead"},
		{ensureFiles(nats.WithObjectStoreStorage(jetstream.MemoryStorage)), "files", `ensure object store "files": `, anew},
		{createConf(nats.WithKeyHistory(7), nats.WithKeyValueTTL(time.Hour)), "conf", `create key-value bucket "conf": `, "EnsureKeyValue adapts it"},
		{createConf(nats.WithKeyHistory(2), nats.WithKeyValueTTL(time.Hour)), "conf", `create key-value bucket "conf": `, "UpdateStream of KV_conf goes ahead"},
		{ensureConf(nats.WithKeyHistory(2)), "conf", `ensure key-value bucket "conf": `, "UpdateStream of KV_conf goes ahead"},
		{ensureConf(nats.WithKeyValueStorage(jetstream.MemoryStorage)), "conf", `ensure key-value bucket "conf": `, anew},
		{second(client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", MaxAge: time.Minute})), "", `ensure stream "S": `, "AllowShrink goes ahead"},
	} {
		var drift *nats.DriftError
		require.ErrorAs(t, test.err, &drift)
		assert.Equal(t, test.bucket, drift.Bucket)
		require.ErrorIs(t, drift, nats.ErrAlreadyExists)
		assert.Equal(t, test.bucket != "", errors.Is(drift, jetstream.ErrBucketExists))
		assert.Equal(t, drift.Error(), test.err.Error(), "as it is returned")
		assert.Regexp(t, "^"+test.prefix+"differs: .*; "+test.remedy+"$", drift.Error())
	}
}
