package nats_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A small object is read without a consumer, which takes the cluster's leader, where the bucket allows
// it.
func TestObjectSmall(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := context.Background()
	content := map[string][]byte{"small": noise(60 << 10), "large": noise(70 << 10)}
	put := func() {
		for name, data := range content {
			_, err := store.PutBytes(ctx, name, data)
			require.NoError(t, err)
		}
	}
	read := func(name string, wanted int) {
		result, err := store.Get(ctx, name)
		require.NoError(t, err)
		assert.Equal(t, wanted, consumers(t, client, "OBJ_files"), name)
		got, err := io.ReadAll(result)
		require.NoError(t, err)
		assert.Equal(t, content[name], got)
		eventually(t, "no consumer is left", func() bool { return consumers(t, client, "OBJ_files") == 0 })
	}
	put()
	read("small", 0)
	read("large", 1)

	stream, err := client.JetStream().Stream(ctx, "OBJ_files")
	require.NoError(t, err)
	cfg := stream.CachedInfo().Config
	cfg.AllowDirect = false
	_, err = client.JetStream().UpdateStream(ctx, cfg)
	require.NoError(t, err)
	read("small", 1)
}
