package kv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// An hour's difference of the clocks makes no deletion older than it is.
func TestPurgeDeletesByTheServersClock(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	conntest.Forward(t, s.URL(), func(nc *natsgo.Conn, m *natsgo.Msg) bool {
		if !strings.HasPrefix(m.Subject, "$JS.API.STREAM.CREATE.") && !strings.HasPrefix(m.Subject, "$JS.API.STREAM.INFO.") {
			return true
		}
		answer, err := nc.Request(m.Subject, m.Data, patience)
		var info map[string]any
		if assert.NoError(t, err) && assert.NoError(t, json.Unmarshal(answer.Data, &info)) && info["ts"] != nil {
			info["ts"] = time.Now().Add(-time.Hour)
			answer.Data, err = json.Marshal(info)
			assert.NoError(t, err)
			assert.NoError(t, m.Respond(answer.Data))
		}
		return false
	})
	b, _, _ := open(t, s, jsapi.Options{Prefix: conntest.ForwardPrefix})
	ctx := context.Background()
	mark, err := b.Write(ctx, "x", nil, kv.Write{Op: jetstream.KeyValueDelete})
	require.NoError(t, err)
	require.NoError(t, b.PurgeDeletes(ctx, time.Nanosecond))
	entry, err := b.Latest(ctx, "x")
	require.NoError(t, err)
	assert.Equal(t, mark, entry.Revision())
	require.NoError(t, b.PurgeDeletes(ctx, -1))
	_, err = b.Latest(ctx, "x")
	require.ErrorIs(t, err, jetstream.ErrKeyNotFound)
}

// Whether keys are gone takes one question for all, where it would take one for each of them.
func TestQuestionsAboutManyKeys(t *testing.T) {
	t.Parallel()
	b, js, _ := newBucket(t)
	ctx := context.Background()
	const n = 200
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
		_, err := js.Publish(ctx, "$KV.b."+keys[i], nil)
		require.NoError(t, err)
	}
	var questions atomic.Int32
	_, err := js.Conn().Subscribe("$JS.API.STREAM.INFO."+kv.StreamPrefix+"b", func(m *natsgo.Msg) {
		if len(m.Data) > 0 {
			questions.Add(1)
		}
	})
	require.NoError(t, err)
	many, err := b.Cache(ctx, keys[:n/2])
	require.NoError(t, err)
	defer many.Close()
	for i := n / 2; i < n; i++ {
		one, err := b.Cache(ctx, keys[i:i+1])
		require.NoError(t, err)
		defer one.Close()
	}
	stream, err := js.Stream(ctx, kv.StreamPrefix+"b")
	require.NoError(t, err)
	require.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSubject("$KV.b.k0")))
	require.Eventually(t, func() bool { return many.Len() == n/2-1 }, patience, 50*time.Millisecond)
	assert.Less(t, questions.Load(), int32(n/10))
}
