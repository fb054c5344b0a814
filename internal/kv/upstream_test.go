package kv_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

func TestOptionsOfUpstream(t *testing.T) {
	t.Parallel()
	w, err := kv.WatchOf([]jetstream.WatchOpt{nil, jetstream.IncludeHistory(), jetstream.MetaOnly(), jetstream.ResumeFromRevision(7)})
	require.NoError(t, err)
	assert.Equal(t, kv.Watch{History: true, MetaOnly: true, From: 7}, w)

	var write kv.Write
	require.NoError(t, kv.SetWrite(&write, []jetstream.KVDeleteOpt{jetstream.LastRevision(3), jetstream.PurgeTTL(2 * time.Second)}))
	assert.Equal(t, kv.Write{Expect: true, Revision: 3, TTL: 2 * time.Second}, write)
	require.ErrorContains(t, kv.SetWrite(&write, []jetstream.KVCreateOpt{jetstream.KeyTTL(time.Millisecond)}), "whole seconds")
	write = kv.Write{Op: jetstream.KeyValueDelete}
	require.ErrorIs(t, kv.SetWrite(&write, []jetstream.KVDeleteOpt{jetstream.PurgeTTL(time.Second)}), jetstream.ErrTTLOnDeleteNotSupported)
	require.ErrorIs(t, kv.SetWrite(&write, []any{func() {}}), jetstream.ErrInvalidOption)
}
