package wire_test

import (
	"strings"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

func TestPublishLine(t *testing.T) {
	t.Parallel()
	header := natsgo.Header{"Key": {"value", ""}} // NATS/1.0, Key: value, Key:, and an empty line
	for line, got := range map[string]int{
		"foo 0":               wire.PublishLine(3, 0, nil, 0),
		"foo bar 9":           wire.PublishLine(3, 3, nil, 9),
		"foo bar 10":          wire.PublishLine(3, 3, natsgo.Header{}, 10),
		"foo 31 31":           wire.PublishLine(3, 0, header, 0),
		"foo bar 31 1031":     wire.PublishLine(3, 3, header, 1000),
		"foo  123456789":      wire.SubscribeLine(3, 0),
		"foo queue 123456789": wire.SubscribeLine(3, 5),
	} {
		assert.Equal(t, len(line), got, line)
	}
	assert.Zero(t, wire.HeaderSize(nil))
	assert.Equal(t, len("NATS/1.0\r\nKey: value\r\nKey: \r\n\r\n"), wire.HeaderSize(header))
}

func TestPublishLineAllocatesNothing(t *testing.T) {
	header := natsgo.Header{"Key": {strings.Repeat("v", 100)}}
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = wire.PublishLine(4000, 60, header, 128) }))
}
