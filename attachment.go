package nats

import (
	"context"
	"slices"
	"sync"

	natsgo "github.com/nats-io/nats.go"
)

// attachment is a subscription of upstream's.
type attachment struct {
	sub     *natsgo.Subscription
	dropped uint64 // as last seen: upstream forgets it with the subscription
	closed  chan struct{}
}

// attach subscribes on nc. Its messages wait for the channel after, unless that is nil: so one
// attachment can follow another without handling messages out of turn.
func (s *Subscription) attach(nc *natsgo.Conn, after <-chan struct{}) (*attachment, error) {
	deliver := s.deliver
	if after != nil {
		deliver = func(m *natsgo.Msg) {
			<-after
			s.deliver(m)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.origin.ctx.Err(); err != nil {
		return nil, context.Cause(s.origin.ctx)
	}
	sub, err := nc.QueueSubscribe(s.subject, s.queue, deliver)
	if err != nil {
		return nil, err
	}
	if o := s.options; o.messages != 0 || o.bytes != 0 {
		if err := sub.SetPendingLimits(limit(o.messages, natsgo.DefaultSubPendingMsgsLimit),
			limit(o.bytes, natsgo.DefaultSubPendingBytesLimit)); err != nil {
			_ = sub.Unsubscribe()
			return nil, err
		}
	}
	a := &attachment{sub: sub, closed: make(chan struct{})}
	s.attached = append(s.attached, a)
	detach := sync.OnceFunc(func() { s.detach(a) })
	sub.SetClosedHandler(func(string) { detach() })
	if !sub.IsValid() { // it was closed before the handler was set
		go detach()
	}
	return a, nil
}

// detach runs once nats.go will deliver nothing more through a. With the last attachment the
// subscription ends.
func (s *Subscription) detach(a *attachment) {
	s.mu.Lock()
	s.attached = slices.DeleteFunc(s.attached, func(other *attachment) bool { return other == a })
	s.dropped += a.dropped
	last := len(s.attached) == 0
	s.mu.Unlock()
	close(a.closed)
	if last {
		s.finish()
	}
}

// has tells whether sub is one of the subscription's attachments.
func (s *Subscription) has(sub *natsgo.Subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.attached, func(a *attachment) bool { return a.sub == sub })
}

// attachments returns the present ones, with their drops remembered.
func (s *Subscription) attachments() []*attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countDropped()
	return slices.Clone(s.attached)
}
