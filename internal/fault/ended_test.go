package fault_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// The cause of a context's end is told beside the end, and alone where it is the library's own.
func TestEnds(t *testing.T) {
	t.Parallel()
	require.NoError(t, fault.Ended(t.Context()))
	assert.Equal(t, io.EOF, fault.Because(t.Context(), io.EOF))
	assert.Equal(t, context.Canceled, fault.Because(t.Context(), context.Canceled), "of another context")
	for _, test := range []struct {
		cause          error
		ended, because string
	}{
		{nil, "context canceled", "x: context canceled"},
		{fault.ErrLockLost, "lock is lost", "lock is lost"},
		{io.EOF, "context canceled: EOF", "context canceled: EOF"},
		{fmt.Errorf("%w by hand", context.Canceled), "context canceled by hand", "context canceled by hand"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(test.cause)
		require.EqualError(t, fault.Ended(ctx), test.ended)
		require.EqualError(t, fault.Because(ctx, fmt.Errorf("x: %w", context.Canceled)), test.because)
		assert.Equal(t, io.ErrClosedPipe, fault.Because(ctx, io.ErrClosedPipe), "something else")
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	assert.Equal(t, context.DeadlineExceeded, fault.Ended(ctx))
}

func TestDeniedBy(t *testing.T) {
	t.Parallel()
	for text, denied := range map[string]fault.Denial{
		`Publish to "a.b"`:                      {Subject: "a.b", Publish: true},
		`Subscription to "a.b"`:                 {Subject: "a.b"},
		`Subscription to "a.b" using queue "q"`: {Subject: "a.b", Queue: "q"},
		`something new`:                         {},
	} {
		assert.Equal(t, denied, fault.DeniedBy(fmt.Errorf("%w: %s", natsgo.ErrPermissionViolation, text)), text)
		assert.Zero(t, fault.DeniedBy(fmt.Errorf("%w: %s", natsgo.ErrAuthorization, text)), text)
	}
}

func TestErrorsOfHandlers(t *testing.T) {
	t.Parallel()
	assert.Empty(t, fault.Attrs(nil))
	assert.Equal(t, []any{"error", io.EOF}, fault.Attrs(io.EOF))
	attrs := fault.Attrs(fault.Panicked("boom"))
	require.Len(t, attrs, 4)
	assert.Contains(t, attrs[3], "TestErrorsOfHandlers")
	told, all := &fault.Answered{Told: "not found"}, &fault.Answered{Told: "not found", Cause: io.EOF}
	require.EqualError(t, told, "not found")
	require.EqualError(t, all, "EOF")
	require.ErrorIs(t, all, io.EOF)
}

// A function that is not ours ends with an error, however it ends.
func TestContained(t *testing.T) {
	t.Parallel()
	require.NoError(t, fault.Contained(func() error { return nil }))
	require.Equal(t, io.EOF, fault.Contained(func() error { return io.EOF }))
	for text, f := range map[string]func() error{
		"it is broken": func() error { panic("it is broken") },
		"Goexit":       func() error { runtime.Goexit(); return nil },
	} {
		err := fault.Contained(f)
		require.ErrorIs(t, err, fault.ErrHandlerPanic)
		require.ErrorContains(t, err, text)
	}
}

func TestIsFull(t *testing.T) {
	t.Parallel()
	for err, full := range map[error]bool{
		nil: false, io.EOF: false, fault.ErrStreamFull: true, &jetstream.APIError{ErrorCode: 10028}: true, &jetstream.APIError{ErrorCode: 10059}: false,
	} {
		assert.Equal(t, full, fault.IsFull(err), err)
		assert.Equal(t, full, err != nil && fault.IsFull(fmt.Errorf("it: %w", err)), err)
	}
}
