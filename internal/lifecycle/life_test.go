package lifecycle_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func nothing(context.Context) {}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// While handlers return, the calls that they make begin and what they open is registered; then both
// are refused, what is open is closed, and the calls that have begun are waited for.
func TestPhases(t *testing.T) {
	t.Parallel()
	l := lifecycle.New()
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	_, err := l.OnClose(func() { note("closer") })
	require.NoError(t, err)
	forget, err := l.OnClose(func() { note("forgotten") })
	require.NoError(t, err)
	forget()
	require.False(t, over(l.Draining()))
	early, err := l.Begin()
	require.NoError(t, err)
	early() // nobody waits yet

	first, err := l.Close(context.Background(), func(context.Context) {
		note("drain")
		assert.True(t, over(l.Draining()))
		assert.False(t, over(l.Ending()))
		done, err := l.Begin()
		require.NoError(t, err)
		_, err = l.OnClose(func() {
			note("opened by a handler")
			go func() {
				note("call") // Close waits for it
				done()
			}()
		})
		require.NoError(t, err)
	}, func(context.Context) {
		note("send")
		assert.True(t, over(l.Ending()))
		require.NoError(t, l.Context().Err())
		_, err := l.Begin()
		require.ErrorIs(t, err, fault.ErrClosed)
		_, err = l.OnClose(func() {})
		require.ErrorIs(t, err, fault.ErrClosed)
	})
	require.True(t, first)
	require.NoError(t, err)
	require.ErrorIs(t, context.Cause(l.Context()), fault.ErrClosed)
	assert.Equal(t, "drain", order[0])
	assert.ElementsMatch(t, []string{"drain", "closer", "opened by a handler", "call", "send"}, order)
	assert.Equal(t, "send", order[4])
}

func TestCloseDoesNotWaitForCallsBeyondItsTime(t *testing.T) {
	t.Parallel()
	l := lifecycle.New()
	done, err := l.Begin()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	first, err := l.Close(ctx, nothing, nothing)
	require.True(t, first)
	require.NoError(t, err)
	done() // late, and harmless
}

func TestSecondCloseKeepsToItsOwnTime(t *testing.T) {
	t.Parallel()
	l := lifecycle.New()
	draining, release, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = l.Close(context.Background(), func(context.Context) { close(draining); <-release }, nothing)
	}()
	<-draining
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	first, err := l.Close(ctx, nothing, nothing)
	require.False(t, first)
	require.ErrorIs(t, err, cause)
	close(release)
	first, err = l.Close(context.Background(), nothing, nothing)
	require.False(t, first)
	require.NoError(t, err)
	<-closed
}

func TestEndComesBeforeClose(t *testing.T) {
	t.Parallel()
	l := lifecycle.New()
	l.End()
	require.ErrorIs(t, context.Cause(l.Context()), fault.ErrClosed)
	drained := false
	first, err := l.Close(context.Background(), func(context.Context) { drained = true }, nothing)
	require.NoError(t, err)
	assert.True(t, first && drained, "handlers may still run")
}

// Close waits for what is attended while there is a connection, and ends it otherwise; what is done is asked no more.
func TestAttend(t *testing.T) {
	t.Parallel()
	for _, up := range []bool{true, false} {
		l := lifecycle.New()
		_, done, err := l.Attend(t.Context(), func() bool { t.Error("it is done"); return up })
		require.NoError(t, err)
		done()
		ctx, done, err := l.Attend(t.Context(), func() bool {
			if up {
				go done()
			}
			return up
		})
		require.NoError(t, err)
		if !up {
			context.AfterFunc(ctx, done) // a call ends with its context
		}
		var cause error
		_, err = l.Close(t.Context(), nothing, func(context.Context) { cause = context.Cause(ctx) })
		require.NoError(t, err)
		assert.Equal(t, map[bool]error{true: context.Canceled, false: fault.ErrClosed}[up], cause)
		_, _, err = l.Attend(t.Context(), nil)
		require.ErrorIs(t, err, fault.ErrClosed)
	}
}
