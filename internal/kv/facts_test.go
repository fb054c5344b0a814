package kv_test

import (
	"context"
	"encoding/json"
	"strings"
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
