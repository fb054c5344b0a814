package consume

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Whatever comes and goes, and in which order: of each key only one is ready or with a worker, the oldest of those that
// wait is the next, and who is ready first is handed out first. It is compared with lists that are searched.
func TestHeldList(t *testing.T) {
	t.Parallel()
	for _, keyed := range []bool{false, true} {
		random := rand.New(rand.NewPCG(1, 2)) // the same each time
		p := &puller{}
		var l heldList
		l.init()
		if keyed {
			l.lanes = make(map[string]*lane)
		}
		var held, ready []*Delivery
		keys, states := make(map[*Delivery]string), make(map[*Delivery]deliveryState)
		one := func(of ...deliveryState) *Delivery { // at random, or nil
			all := slices.DeleteFunc(slices.Clone(held), func(d *Delivery) bool { return !slices.Contains(of, states[d]) })
			if len(all) == 0 {
				return nil
			}
			return all[random.IntN(len(all))]
		}
		becomes := func(d *Delivery, state deliveryState) {
			if states[d] = state; state == stateReady {
				ready = append(ready, d)
			}
		}
		for i := range 5000 {
			switch random.IntN(7) {
			case 0, 1:
				d := &Delivery{from: p, Sequence: uint64(i * 7919 % 5000)}
				key := fmt.Sprint(random.IntN(6))
				blocked := keyed && slices.ContainsFunc(held, func(d *Delivery) bool { return keys[d] == key })
				held, keys[d] = append(held, d), key
				require.Equal(t, !blocked, l.add(d, key))
				if !blocked {
					becomes(d, stateReady)
				}
			case 2:
				d := l.next()
				if len(ready) == 0 {
					require.Nil(t, d)
					break
				}
				require.Same(t, ready[0], d)
				ready = ready[1:]
				becomes(d, stateRunning)
			case 3:
				if d := one(stateRunning); d != nil {
					l.suspend(d)
					becomes(d, stateWaiting)
				}
			case 4:
				if d := one(stateWaiting); d != nil {
					l.makeReady(d)
					becomes(d, stateReady)
				}
			default:
				d := one(stateBlocked, stateReady, stateRunning, stateWaiting)
				if d == nil {
					break
				}
				var next *Delivery
				for _, other := range held {
					if keyed && states[d] != stateBlocked && other != d && keys[other] == keys[d] && (next == nil || other.Sequence < next.Sequence) {
						next = other
					}
				}
				require.Equal(t, next != nil, l.remove(d))
				is := func(other *Delivery) bool { return other == d }
				held, ready = slices.DeleteFunc(held, is), slices.DeleteFunc(ready, is)
				if states[d] = stateGone; next != nil {
					becomes(next, stateReady)
				}
			}
			active := 0
			for d, state := range states {
				if d.state != state {
					require.Equal(t, state, d.state)
				}
				if state == stateReady || state == stateRunning {
					active++
				}
				if state == stateGone {
					delete(states, d)
				}
			}
			require.Equal(t, []int{len(held), len(ready), active}, []int{l.count, l.ready, p.active})
		}
		var all []*Delivery
		l.all(func(d *Delivery) {
			all = append(all, d)
			l.remove(d)
		})
		require.Equal(t, held, all)
		require.Zero(t, l.count)
		require.Empty(t, l.lanes)
	}
}

// A message that comes once more while it is here is known, unless its worker was given up, or it is settled, or it is the
// copy in the retry stream.
func TestTwins(t *testing.T) {
	t.Parallel()
	here, side := &puller{}, &puller{side: true}
	delivery := func(from *puller, sequence uint64, stored int64) *Delivery {
		return &Delivery{from: from, Sequence: sequence, stored: stored, Token: new(wire.Token)}
	}
	for _, test := range []struct {
		held, again *Delivery
		expired     bool
		taken       bool
		twins       bool
	}{
		{held: delivery(here, 7, 1), again: delivery(here, 7, 1), twins: true},
		{held: delivery(here, 7, 1), again: delivery(here, 8, 1)},
		{held: delivery(here, 7, 1), again: delivery(here, 7, 2)},
		{held: delivery(here, 7, 1), again: delivery(here, 7, 1), expired: true},
		{held: delivery(here, 7, 1), again: delivery(here, 7, 1), taken: true},
		{held: delivery(here, 7, 1), again: delivery(side, 7, 1)},
		{held: delivery(side, 7, 1), again: delivery(side, 7, 1), twins: true},
		{held: delivery(side, 7, 1), again: delivery(here, 7, 1), twins: true},
	} {
		var l heldList
		l.init()
		require.Nil(t, l.twin(test.again))
		l.add(delivery(here, 1, 1), "")
		l.add(test.held, "")
		if test.held.expired = test.expired; test.taken {
			test.held.Token.Take()
		}
		if test.twins {
			require.Same(t, test.held, l.twin(test.again))
		} else {
			require.Nil(t, l.twin(test.again), "%+v", test)
		}
	}
}
