package sentinel_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/sentinel"
)

const trip = time.Second

// watch is one over a server with n parts, in a time of its own.
func watch(t *testing.T, n int, f func(x *sentinel.Nodes, parts []*sentinel.Part)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		x := sentinel.New(func() time.Duration { return trip })
		parts := make([]*sentinel.Part, n)
		for i := range parts {
			parts[i] = sentinel.NewPart()
			x.Join(parts[i], "A")
		}
		f(x, parts)
		for _, p := range parts {
			p.Leave() // or the time would never end
			p.Leave()
		}
	})
}

// sentinels are the parts that have quick heartbeats.
func sentinels(parts []*sentinel.Part) (all []*sentinel.Part) {
	for _, p := range parts {
		if p.IsSentinel() {
			all = append(all, p)
		}
	}
	return all
}

// alarms counts the parts that are alarmed, and woken for it.
func alarms(parts []*sentinel.Part) (n int) {
	for _, p := range parts {
		if p.Alarmed() {
			<-p.Woken()
			n++
		}
	}
	return n
}

// There is one on each server, also when one leaves.
func TestOneIsTheSentinel(t *testing.T) {
	t.Parallel()
	watch(t, 3, func(x *sentinel.Nodes, parts []*sentinel.Part) {
		other := sentinel.NewPart()
		time.Sleep(sentinel.Silence)
		x.Join(other, "B")
		assert.Zero(t, other.Silence(), "who is the first to come has patience")
		assert.True(t, other.IsSentinel())
		<-other.Woken()
		other.Leave()
		assert.False(t, other.IsSentinel())
		late := sentinel.NewPart()
		x.Join(late, "A")
		late.Leave()
		assert.Equal(t, parts[:1], sentinels(parts))
		for len(parts) > 0 {
			assert.Len(t, sentinels(parts), 1)
			first := sentinels(parts)[0]
			<-first.Woken()
			first.Leave()
			woken := 0
			for _, p := range parts {
				woken += len(p.Woken())
			}
			assert.Equal(t, min(1, len(parts)-1), woken, "only the next is told")
			for i := range parts {
				if parts[i] == first {
					parts = append(parts[:i:i], parts[i+1:]...)
					break
				}
			}
		}
		assert.Greater(t, other.Silence(), time.Hour)
	})
}

// What one hears, all have heard. When nothing is heard all are alarmed, and again while that lasts.
func TestSilenceAlarmsAll(t *testing.T) {
	t.Parallel()
	assert.Less(t, 2*sentinel.Beat, sentinel.Silence)
	assert.Greater(t, 3*sentinel.Beat, sentinel.Silence)
	watch(t, 3, func(x *sentinel.Nodes, parts []*sentinel.Part) {
		<-parts[0].Woken()
		for range 10 {
			time.Sleep(sentinel.Beat + trip)
			assert.Equal(t, sentinel.Beat+trip, parts[2].Silence())
			parts[1].Sign()
			assert.Zero(t, parts[2].Silence())
		}
		synctest.Wait()
		assert.Zero(t, alarms(parts))
		assert.True(t, parts[0].IsSentinel())
		for range 2 {
			time.Sleep(sentinel.Silence + trip)
			synctest.Wait()
			assert.Equal(t, 3, alarms(parts))
			assert.Zero(t, alarms(parts))
		}
		late := sentinel.NewPart()
		x.Join(late, "A")
		assert.GreaterOrEqual(t, late.Silence(), 2*(sentinel.Silence+trip), "to come is no sign")
		late.Leave()
		time.Sleep(sentinel.Silence + trip)
		synctest.Wait()
		assert.Equal(t, 3, alarms(parts), "the others are watched on")
	})
}

// Who comes when all others have left, or comes back, is in a watch like the first.
func TestAWatchBeginsAnew(t *testing.T) {
	t.Parallel()
	watch(t, 2, func(x *sentinel.Nodes, parts []*sentinel.Part) {
		time.Sleep(sentinel.Silence + trip)
		synctest.Wait()
		for _, p := range parts {
			p.Leave()
			<-p.Woken()
		}
		time.Sleep(sentinel.Silence + trip)
		for _, p := range parts {
			x.Join(p, "A")
			assert.False(t, p.Alarmed(), "that was before")
		}
		assert.Equal(t, parts[:1], sentinels(parts))
		time.Sleep(sentinel.Silence + trip - time.Nanosecond)
		synctest.Wait()
		assert.False(t, parts[0].Alarmed())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.Equal(t, 2, alarms(parts))
	})
}

// The first that hears something after an alarm is the sentinel: the one before may not read.
func TestWhoHearsIsTheSentinel(t *testing.T) {
	t.Parallel()
	watch(t, 3, func(_ *sentinel.Nodes, parts []*sentinel.Part) {
		time.Sleep(sentinel.Silence + trip)
		synctest.Wait()
		parts[2].Sign()
		parts[1].Sign()
		assert.Equal(t, parts[2:], sentinels(parts))
		<-parts[2].Woken()
		parts[0].Sign()
		assert.Equal(t, parts[2:], sentinels(parts))
		time.Sleep(sentinel.Beat)
		synctest.Wait()
		parts[2].Leave()
		parts[2].Sign() // what was on its way
		assert.Len(t, sentinels(parts), 1)
		assert.False(t, parts[2].IsSentinel())
	})
}
