package conn

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A peer that takes a little now and then is slow, and one that takes nothing is dead when its time is over.
func TestSlowIsNotDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := newPatient(ours, 10*time.Second)
		go func() {
			for range 20 {
				time.Sleep(9 * time.Second)
				_, _ = theirs.Read(make([]byte, 100))
			}
		}()
		n, err := c.Write(make([]byte, 2000))
		require.NoError(t, err)
		assert.Equal(t, 2000, n)
		assert.Zero(t, c.stalled())

		began := time.Now()
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, errTakesNothing)
		assert.GreaterOrEqual(t, time.Since(began), 10*time.Second)
		assert.LessOrEqual(t, time.Since(began), 10*time.Second+oneWrite)

		c.hurry.Store(true) // one attempt
		began = time.Now()
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, errTakesNothing)
		assert.LessOrEqual(t, time.Since(began), oneWrite)

		require.NoError(t, theirs.Close())
		_, err = c.Write([]byte("x"))
		require.ErrorContains(t, err, "closed pipe")
		require.NoError(t, ours.Close())
	})
}
