package receive

import (
	"context"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// deniedPause is how long after a denial it is tried whether the server permits a subscription now: rights that are given
// without a new connection are not told of.
const deniedPause = 5 * time.Second

// deny takes a refusal of the server, over a connection that broke so often before, and tells whether it needs no telling:
// a call returns it, or it is known.
func (s *Subscription) deny(err error, breaks uint64, full bool) (settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if full && !s.making {
		return false
	}
	known := s.refused != nil && s.refusedIn == breaks
	s.refused, s.refusedIn = err, breaks
	s.denials++
	if !s.making && !s.asks {
		s.asks = true
		time.AfterFunc(deniedPause, s.askAgain)
	}
	return s.making || known
}

// askAgain subscribes anew where the server of the present connection denies it.
func (s *Subscription) askAgain() {
	if errors.Is(s.Err(), natsgo.ErrMaxSubscriptionsExceeded) {
		s.e.asking.Lock()
		defer s.e.asking.Unlock()
	}
	c := s.e.conn
	_, breaks, _ := c.State()
	s.mu.Lock()
	old, denials := s.upstream, s.denials
	s.asks = s.refusedIn == breaks && old != nil && s.cause == nil && !s.releasing
	asks := s.asks
	s.making = asks
	s.mu.Unlock()
	if !asks {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), deniedPause)
	defer cancel()
	pass, err := c.Enter(ctx, 0)
	if err == nil {
		old.SetClosedHandler(func(string) {}) // another one takes its place
		_ = old.Unsubscribe()
		if err = s.attach(); err != nil {
			s.detached("")
		}
		pass.Leave()
	}
	if err == nil {
		err = c.RoundTrip(ctx, "subscribe", s.Subject)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making = false
	if err == nil && s.denials == denials {
		s.refused, s.asks = nil, false
		return
	}
	time.AfterFunc(deniedPause, s.askAgain)
}
