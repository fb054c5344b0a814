package wire_test

import (
	"maps"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

func TestCopiedHeadersComeBack(t *testing.T) {
	t.Parallel()
	letter := &wire.Letter{
		Subject: "s", Header: natsgo.Header{
			"Nats-Msg-Id": {"1"}, "nats-ttl": {"1s"}, "Origin": {"https://example.com"}, "Origin-Stream": {"theirs"},
			"Origin-Header-Nats-Msg-Id": {"copied twice"}, "Dead-Letter-Reason": {"old"}, "X": {"a", "b"},
		},
		Stream: "S", Sequence: 3, Stored: time.Unix(0, 4).UTC(), Consumer: "C", Deliveries: 5, Time: time.Unix(6, 0).UTC(),
	}
	for _, header := range []natsgo.Header{letter.Header, nil} {
		letter.Header = header
		copied := letter.Copy(wire.RetryTime)
		assert.Equal(t, []string{"S"}, copied[wire.OriginStream])
		assert.Equal(t, header["X"], copied["X"])
		assert.Equal(t, header["Origin"], copied["Origin"])
		for name := range copied {
			assert.False(t, len(name) > 4 && (name[:5] == "Nats-" || name[:5] == "nats-"), name)
		}
		read, err := wire.ReadLetter(copied, nil, wire.RetryTime)
		require.NoError(t, err)
		assert.Equal(t, letter, read)
	}
	copied := letter.Copy(wire.DeadLetterTime)
	copied[wire.DeadLetterReason], copied[wire.DeadLetterReference] = []string{"why"}, []string{"true"}
	letter.Reason, letter.Reference = "why", true
	read, err := wire.ReadLetter(copied, nil, wire.DeadLetterTime)
	require.NoError(t, err)
	assert.Equal(t, letter, read)
	for _, number := range []string{wire.OriginSequence, wire.OriginDeliveries, wire.OriginTime, wire.DeadLetterTime} {
		broken := maps.Clone(copied)
		broken[number] = []string{"x"}
		_, err := wire.ReadLetter(broken, nil, wire.DeadLetterTime)
		require.Error(t, err, number)
	}
	_, err = wire.ReadLetter(letter.Header, nil, wire.RetryTime)
	require.Error(t, err)
}
