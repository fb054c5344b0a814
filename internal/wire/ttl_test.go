package wire_test

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// As the server reads it.
func TestTTL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "never": wire.Forever, "Never": wire.Forever, "90": 90 * time.Second, "1m30s": 90 * time.Second,
		"1500ms": time.Second, "10ms": 0, "-5": 0, "soon": 0,
	} {
		assert.Equal(t, want, wire.TTL(natsgo.Header{"Nats-TTL": {text}}), text)
	}
	assert.Zero(t, wire.TTL(nil))
	assert.Negative(t, wire.Forever)
}
