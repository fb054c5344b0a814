package nats

import (
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
)

func TestCopiedHeadersComeBack(t *testing.T) {
	t.Parallel()
	header := natsgo.Header{
		"Nats-Msg-Id": {"1"}, "nats-ttl": {"1s"}, "Origin": {"https://example.com"}, "Origin-Stream": {"theirs"},
		"Origin-Header-Nats-Msg-Id": {"copied twice"}, "Dead-Letter-Reason": {"old"}, "X": {"a", "b"},
	}
	s := &Consumption{stream: "S", consumer: "C"}
	copied := s.copyHeader(&delivery{msg: Message{Subject: "s"}}, header)
	assert.Equal(t, []string{"S"}, copied[HeaderOriginStream])
	for name := range copied {
		assert.False(t, len(name) > 4 && (name[:5] == "Nats-" || name[:5] == "nats-"), name)
	}
	assert.Equal(t, header, originalHeader(copied))
	assert.Nil(t, originalHeader(s.copyHeader(&delivery{}, nil)))
}
