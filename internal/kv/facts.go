package kv

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The server tells followers of keys neither that one has expired where no marks are left, nor of a purge
// of the stream, nor of a change of its configuration. So while a client follows a bucket it asks for the
// stream's state every few seconds, once for all that follow; what is gone by that has to be looked for
// only when there are fewer keys than before.
const (
	factsFor  = 3 * time.Second      // how long they are taken for true
	sweepLate = 2 * time.Second      // by which the server may expire a key
	namePause = 3 * time.Millisecond // for each name that was asked for, until all are asked for again
	blindFor  = time.Minute          // who may not ask does not ask again, but over a new connection
	nameCost  = 50                   // how many of them take as much as one more question does
)

// facts are what a handle knows of its bucket's stream, as the server last told.
type facts struct {
	asked   time.Time
	created time.Time
	ttl     time.Duration // of every value; 0 for none
	keyTTLs bool          // single keys may have one
	direct  bool          // every replica answers reads
	ahead   time.Duration // of the server's clock; 0 when the difference is no more than the answer took
	first   uint64        // sequence that is left
	last    uint64        // sequence
	keys    uint64        // with a message, be it the mark of a deletion
}

// factsOf returns what info says, which was asked for at that time.
func factsOf(info *jetstream.StreamInfo, asked time.Time) *facts {
	half := time.Since(asked) / 2
	ahead := info.TimeStamp.Sub(asked.Add(half))
	if ahead.Abs() <= half {
		ahead = 0
	}
	return &facts{
		asked: asked, created: info.Created, ttl: info.Config.MaxAge, keyTTLs: info.Config.AllowMsgTTL,
		direct: info.Config.AllowDirect, ahead: ahead, first: info.State.FirstSeq, last: info.State.LastSeq, keys: info.State.NumSubjects,
	}
}

// MaxAge returns the time to live of all values, 0 for none, as it was within the last few seconds.
func (b *Bucket) MaxAge(ctx context.Context) (time.Duration, error) {
	now, err := b.now(ctx)
	if err != nil {
		return 0, err
	}
	return now.ttl, nil
}

// now returns the facts as they were within the last few seconds.
func (b *Bucket) now(ctx context.Context) (*facts, error) {
	if known := b.facts.Load(); time.Since(known.asked) < factsFor {
		return known, nil
	}
	return b.inquire(ctx)
}

func (b *Bucket) inquire(ctx context.Context) (*facts, error) {
	asked := time.Now()
	info, err := b.api.StreamInfo(ctx, b.stream)
	if err != nil {
		return nil, err
	}
	known := factsOf(info, asked)
	b.facts.Store(known)
	return known, nil
}

// over tells whether a value's time has been over for late. The bucket's own ends that of a key, but for
// one without end.
func (f *facts) over(l lifetime, late time.Duration) bool {
	ttl := f.ttl
	if f.keyTTLs && l.seconds != 0 {
		if l.seconds < 0 {
			return false
		}
		if own := time.Duration(l.seconds) * time.Second; ttl == 0 || own < ttl {
			ttl = own
		}
	}
	if ttl == 0 { // what is cached is not worth a look at the clock
		return false
	}
	return f.age(l.created)-late > ttl
}

// age is how long ago the server stored something at that time, by its own clock.
func (f *facts) age(stored int64) time.Duration {
	return time.Duration(time.Now().UnixNano()-stored) + f.ahead
}

// check is what a follower of keys is to compare with what it knows.
type check struct {
	*facts
	names map[string]uint64 // all keys that there are; nil when they were not asked for
}

// lost tells whether a key that was there at revision is gone without a word.
func (c *check) lost(key string, revision uint64) bool {
	return c.names != nil && revision <= c.last && c.names[key] == 0
}

// poll is the question for one bucket. The lock of Buckets guards it.
type poll struct {
	followers map[*follower]struct{}
	stop      context.CancelFunc
}

// join lets f take part in the question for its bucket, until leave is called.
func (s *Buckets) join(f *follower) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stream := f.bucket.stream
	p := s.polls[stream]
	if p == nil {
		ctx, stop := context.WithCancel(s.life.Context())
		p = &poll{followers: make(map[*follower]struct{}), stop: stop}
		s.polls[stream] = p
		go s.run(ctx, f.bucket, p)
	}
	p.followers[f] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(p.followers, f); len(p.followers) == 0 {
			p.stop()
			delete(s.polls, stream)
		}
	}
}

// run asks for as long as somebody follows.
func (s *Buckets) run(ctx context.Context, b *Bucket, p *poll) {
	last := b.facts.Load() // which may be old
	if now, err := b.inquire(ctx); err == nil {
		begin := *now
		if now.created.Equal(last.created) { // a key may have gone since the first follower has begun to read
			begin.keys = max(now.keys, last.keys)
		}
		last = &begin
	}
	var namesAgain time.Time
	blind := false             // the server has denied the question
	var change <-chan struct{} // of the connection since then
	for pause := factsFor; ; {
		select {
		case <-time.After(pause):
		case <-change:
		case <-ctx.Done():
			return
		}
		now, err := b.inquire(ctx)
		if errors.Is(err, natsgo.ErrPermissionViolation) {
			if !blind {
				s.reports.Blind(b.name, err)
			}
			_, _, change = s.conn.State()
			blind, pause = true, blindFor
			continue
		}
		if pause, change = factsFor, nil; err != nil { // the followers have noticed, or will when they read on
			continue
		}
		blind = false
		emptied := now.first > last.last // of all that was there
		doubted := now.created.Equal(last.created) && (emptied || now.keys < last.keys)
		names := doubted && (emptied || time.Now().After(namesAgain))
		n, err := s.tell(ctx, b, p, now, names)
		if names {
			namesAgain = time.Now().Add(time.Duration(n) * namePause)
		}
		if err == nil && names == doubted {
			last = now
		}
	}
}

// tell gives all followers the facts, and the names of the keys that they follow. It returns how many
// names these are.
func (s *Buckets) tell(ctx context.Context, b *Bucket, p *poll, now *facts, withNames bool) (n int, err error) {
	s.mu.Lock()
	followers := slices.Collect(maps.Keys(p.followers))
	s.mu.Unlock()
	asked := make(map[string]map[string]uint64) // by filters
	all := withNames && asksForAll(followers, now.keys)
	for _, f := range followers {
		f.bucket.facts.Store(now)
		news := &check{facts: now}
		switch filters, name := f.filters, ""; {
		case withNames:
			if all {
				filters = nil
			} else {
				name = f.name()
			}
			if asked[name] == nil {
				if asked[name], err = b.names(ctx, filters); err != nil {
					return n, err
				}
				n += len(asked[name])
			}
			news.names = asked[name]
		case now.ttl == 0 && !f.mortal.Load():
			continue // there is nothing to compare
		}
		if !f.check.CompareAndSwap(nil, news) && withNames {
			f.check.Store(news)
		}
		f.reader.Wake()
	}
	return n, nil
}

// asksForAll tells whether to ask once for all keys that there are, and not for those of each filter.
func asksForAll(followers []*follower, keys uint64) bool {
	filters := make(map[string]bool)
	for _, f := range followers {
		if len(f.filters) == 0 {
			return true
		}
		for _, filter := range f.filters {
			filters[filter] = true
		}
	}
	return keys < nameCost*uint64(len(filters))
}

// names asks for the keys, and the marks of deletions, that match filters.
func (b *Bucket) names(ctx context.Context, filters []string) (map[string]uint64, error) {
	names := make(map[string]uint64)
	for _, subject := range b.subjects(filters) {
		found, err := b.api.Subjects(ctx, b.stream, subject)
		if err != nil {
			return nil, err
		}
		for subject, n := range found {
			names[strings.TrimPrefix(subject, b.prefix)] = n
		}
	}
	return names, nil
}
