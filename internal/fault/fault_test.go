package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// An error has its sentinel and upstream's, and is wrapped once.
func TestWrapKeepsBothIdentities(t *testing.T) {
	t.Parallel()
	require.NoError(t, fault.Wrap("op", "target", nil))
	for upstream, ours := range map[error]error{
		natsgo.ErrConnectionClosed:                                fault.ErrClosed,
		natsgo.ErrMaxPayload:                                      fault.ErrPayloadTooLarge,
		natsgo.ErrNoResponders:                                    fault.ErrNoResponders,
		context.DeadlineExceeded:                                  fault.ErrTimeout,
		jetstream.ErrStreamNotFound:                               fault.ErrStreamNotFound,
		jetstream.ErrNoStreamResponse:                             fault.ErrNoStream, // which is upstream's no responders as well
		jetstream.ErrConsumerNotFound:                             fault.ErrConsumerNotFound,
		&jetstream.APIError{ErrorCode: 10071}:                     fault.ErrConflict,
		&jetstream.APIError{ErrorCode: fault.CodeMessageTooLarge}: fault.ErrPayloadTooLarge,
		&jetstream.APIError{ErrorCode: fault.CodeStoreFailed, Description: "maximum bytes exceeded"}: fault.ErrStreamFull,
	} {
		err := fault.Wrap("op", "target", fmt.Errorf("context: %w", upstream))
		require.ErrorIs(t, err, ours)
		require.ErrorIs(t, err, upstream)
		assert.Equal(t, err, fault.Wrap("other", "one", err))
		assert.True(t, strings.HasPrefix(err.Error(), `op "target": `+ours.Error()+": context: "), err)
	}
	require.NoError(t, fault.Kind(io.EOF))
	require.NoError(t, fault.Kind(&jetstream.APIError{ErrorCode: fault.CodeStoreFailed, Description: "shutting down"}))
	assert.Equal(t, `op "target": timed out: EOF`, fault.Wrap("op", "target", &fault.Error{Kind: fault.ErrTimeout, Cause: io.EOF}).Error())
	assert.Equal(t, `op: EOF`, fault.Wrap("op", "", io.EOF).Error())
}

func TestJoinedIsOneLine(t *testing.T) {
	t.Parallel()
	err := fault.Joined{io.EOF, fault.New("op", "", fault.ErrTimeout, "after %d tries: %w", 3, io.ErrClosedPipe)}
	assert.Equal(t, "EOF; op: timed out: after 3 tries: io: read/write on closed pipe", err.Error())
	for _, target := range []error{io.EOF, fault.ErrTimeout, io.ErrClosedPipe} {
		require.ErrorIs(t, err, target)
	}
	var e *fault.Error
	require.ErrorAs(t, err, &e)
	require.NotErrorIs(t, err, errors.ErrUnsupported)
}

// Input of users may stand in for a name: a page of it is cut, and what is short is not.
func TestLongNamesAreCut(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("ä", 2500)
	text := fault.New("publish", name, fault.ErrInvalidSubject, "queue group %q", name).Error()
	assert.Less(t, len(text), 400)
	assert.Equal(t, 2, strings.Count(text, "(5000 bytes)"), text)
	assert.NotContains(t, text, "\\x", "whole letters")
	assert.Contains(t, fault.New("publish", name[:300], nil, "").Error(), name[:300])
}
