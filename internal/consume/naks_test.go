package consume

import (
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

// They leave together, or when they are due before that, and while there is no connection for as long as the server does
// not deliver them by itself. The time is a bubble's own: what is told is exact.
func TestNaksLeaveInBursts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		s := &Consumption{begun: time.Now(), extender: time.NewTimer(time.Hour), rules: ackRules{shortest: 20 * time.Second}}
		assert.False(t, s.NakAfter("now", 0))
		for range 2 {
			time.Sleep(100 * ms)
			require.True(t, s.NakAfter("r", time.Minute))
		}
		require.True(t, s.NakAfter("soon", 40*ms))
		assert.Equal(t, []nak{
			{"r", 60_100 * ms, 250 * ms, 20_100 * ms}, {"r", 60_200 * ms, 250 * ms, 20_200 * ms}, {"soon", 240 * ms, 240 * ms, 20_200 * ms},
		}, s.naks.list)
		assert.Equal(t, 240*ms, s.looks)
		assert.Equal(t, 3, s.asked())

		assert.Equal(t, 240*ms, s.sendNaks(239*ms, false))
		assert.Equal(t, 250*ms, s.sendNaks(240*ms, false), "the third at 490 ms")
		assert.Equal(t, 500*ms, s.sendNaks(250*ms, false))
		s.naks.list = s.naks.list[:2]
		assert.Equal(t, 20_350*ms, s.sendNaks(20_100*ms, false))
		assert.Len(t, s.naks.list, 2)
		assert.Equal(t, 20_351*ms, s.sendNaks(20_101*ms, false))
		assert.Len(t, s.naks.list, 1)
		assert.Equal(t, time.Duration(math.MaxInt64), s.sendNaks(time.Hour, false))
		assert.Zero(t, s.asked())

		s.rules.shortest = 160 * ms
		require.True(t, s.NakAfter("r", time.Minute))
		assert.Equal(t, 240*ms, s.naks.list[0].leaves, "a quarter of the ack wait")
		s.naks.list, s.naks.ended = nil, true
		assert.False(t, s.NakAfter("late", time.Minute))

		s.naks.away = []time.Duration{300 * ms, 500 * ms}
		assert.Equal(t, 2, s.asked())
		time.Sleep(200 * ms) // 400
		assert.Equal(t, 1, s.asked())
		time.Sleep(200 * ms) // 600
		assert.Equal(t, 1, s.asked(), "it is not looked at each time")
		time.Sleep(50 * ms)
		assert.Zero(t, s.asked())
	})
}

// The server adds the delay to when the delivery's own deadline began: with a back-off of its own, that is another one.
func TestNakAfterABackOff(t *testing.T) {
	t.Parallel()
	s := &Consumption{Options: Options{Stream: "S"}}
	const parked = "$JS.ACK.S_RETRY.C.2.1.1.1.0"
	verb := func(reply string) string { return string(s.verbNakAfter(reply, time.Minute)) }
	assert.Equal(t, `-NAK {"delay": 60000000000}`, verb("$JS.ACK.S.C.2.1.1.1.0"))
	s.rules.AckWait, s.rules.BackOff = time.Second, []time.Duration{time.Second, 6 * time.Second}
	for reply, want := range map[string]string{
		"$JS.ACK.S.C.0.1.1.1.0": "60", "$JS.ACK.S.C.1.1.1.1.0": "60", "$JS.ACK.S.C.2.1.1.1.0": "55", "$JS.ACK.S.C.9.1.1.1.0": "55", parked: "60",
	} {
		assert.Equal(t, `-NAK {"delay": `+want+`000000000}`, verb(reply), reply)
	}
	assert.True(t, s.isParked(parked))
	assert.False(t, s.isParked("$JS.ACK.S.C.2.1.1.1.0"))
}

// textLog is a log.
type textLog struct{ conntest.Words }

func (l *textLog) Write(line []byte) (int, error) {
	l.Say(string(line))
	return len(line), nil
}

// What the server cannot be told at the end comes at another time than it was to.
func TestNaksThatCannotLeaveAreTold(t *testing.T) {
	t.Parallel()
	var log textLog
	s := &Consumption{
		e: New(nil, nil, nil, 0, nil, nil), conn: new(conn.Conn), log: slog.New(slog.NewTextHandler(&log, nil)),
		begun: time.Now(), extender: time.NewTimer(time.Hour), rules: ackRules{shortest: 20 * time.Second},
	}
	for range 2 {
		require.True(t, s.NakAfter("r", time.Minute))
	}
	s.endNaks()
	require.Eventually(t, func() bool { return len(log.Said()) > 0 }, time.Minute, time.Millisecond)
	assert.Len(t, log.Said(), 1)
	assert.Contains(t, log.Said()[0], "messages=2")
}
