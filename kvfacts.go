package nats

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
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
)

// bucketFacts are what a handle knows of its bucket's stream, as the server last told.
type bucketFacts struct {
	asked   time.Time
	created time.Time
	ttl     time.Duration // of every value; 0 for none
	keyTTLs bool          // single keys may have one
	ahead   time.Duration // of the server's clock; 0 when the difference is no more than the answer took
	first   uint64        // sequence that is left
	last    uint64        // sequence
	keys    uint64        // with a message, be it the mark of a deletion
}

// factsOf returns what info says, which was asked for at that time.
func factsOf(info *jetstream.StreamInfo, asked time.Time) *bucketFacts {
	half := time.Since(asked) / 2
	ahead := info.TimeStamp.Sub(asked.Add(half))
	if ahead.Abs() <= half {
		ahead = 0
	}
	return &bucketFacts{
		asked: asked, created: info.Created, ttl: info.Config.MaxAge, keyTTLs: info.Config.AllowMsgTTL, ahead: ahead,
		first: info.State.FirstSeq, last: info.State.LastSeq, keys: info.State.NumSubjects,
	}
}

// known returns facts that are not old, and asks when they are.
func (kv *KeyValue) known(ctx context.Context) (*bucketFacts, error) {
	if facts := kv.facts.Load(); time.Since(facts.asked) < factsFor {
		return facts, nil
	}
	return kv.inquire(ctx)
}

func (kv *KeyValue) inquire(ctx context.Context) (*bucketFacts, error) {
	asked := time.Now()
	info, err := kv.client.api.StreamInfo(ctx, kv.stream)
	if err != nil {
		return nil, err
	}
	facts := factsOf(info, asked)
	kv.facts.Store(facts)
	return facts, nil
}

// lifetime is when a value was stored, in Unix nanoseconds, and the seconds that it was given: 0 when none
// were, and foreverTTL.
type lifetime struct {
	created int64
	seconds int32
}

const foreverTTL = -1

// secondsOf reads a message's time to live as the server does.
func secondsOf(header natsgo.Header) int32 {
	text := header.Get(jetstream.MsgTTLHeader)
	if text == "" {
		return 0
	}
	if strings.EqualFold(text, "never") {
		return foreverTTL
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if d, notDuration := time.ParseDuration(text); notDuration == nil {
		seconds, err = int64(d/time.Second), nil
	}
	if err != nil {
		return 0
	}
	return int32(min(seconds, math.MaxInt32))
}

// over tells whether a value's time has been over for late. The bucket's own ends that of a key, but for
// one without end.
func (f *bucketFacts) over(l lifetime, late time.Duration) bool {
	ttl := f.ttl
	if f.keyTTLs && l.seconds != 0 {
		if l.seconds == foreverTTL {
			return false
		}
		if own := time.Duration(l.seconds) * time.Second; ttl == 0 || own < ttl {
			ttl = own
		}
	}
	return ttl > 0 && time.Now().UnixNano()+int64(f.ahead)-l.created > int64(ttl+late)
}

// bucketCheck is what a follower of keys is to compare with what it knows.
type bucketCheck struct {
	*bucketFacts
	names map[string]uint64 // all keys that there are; nil when they were not asked for
}

// lost tells whether a key that was there at revision is gone without a word.
func (c *bucketCheck) lost(key string, revision uint64) bool {
	return c.names != nil && revision <= c.last && c.names[key] == 0
}

// bucketPolls are the questions of a client, by bucket.
type bucketPolls struct {
	mu sync.Mutex
	of map[string]*bucketPoll
}

// bucketPoll is the question for one bucket. The lock of bucketPolls guards it.
type bucketPoll struct {
	followers map[*keyFollower]struct{}
	stop      context.CancelFunc
}

// join lets f take part in the question for its bucket, until leave is called.
func (b *bucketPolls) join(f *keyFollower) (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.of[f.kv.stream]
	if p == nil {
		ctx, stop := context.WithCancel(f.kv.client.life.Context())
		p = &bucketPoll{followers: make(map[*keyFollower]struct{}), stop: stop}
		if b.of == nil {
			b.of = make(map[string]*bucketPoll)
		}
		b.of[f.kv.stream] = p
		go b.run(ctx, f.kv, p)
	}
	p.followers[f] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if delete(p.followers, f); len(p.followers) == 0 {
			p.stop()
			delete(b.of, f.kv.stream)
		}
	}
}

// run asks for as long as somebody follows.
func (b *bucketPolls) run(ctx context.Context, kv *KeyValue, p *bucketPoll) {
	last := kv.facts.Load()
	var namesAgain time.Time
	for {
		select {
		case <-time.After(factsFor):
		case <-ctx.Done():
			return
		}
		facts, err := kv.inquire(ctx)
		if errors.Is(err, ErrPermission) {
			kv.client.log.Warn("the state of the bucket may not be asked for, so a purge of it is not noticed", "bucket", kv.bucket, "error", err)
			return
		}
		if err != nil { // the followers have noticed, or will when they read on
			continue
		}
		emptied := facts.first > last.last // of all that was there
		doubted := facts.created.Equal(last.created) && (emptied || facts.keys < last.keys)
		names := doubted && (emptied || time.Now().After(namesAgain))
		n, err := b.tell(ctx, kv, p, facts, names)
		if names {
			namesAgain = time.Now().Add(time.Duration(n) * namePause)
		}
		if err == nil && names == doubted {
			last = facts
		}
	}
}

// tell gives all followers the facts, and the names of the keys that they follow. It returns how many
// names these are.
func (b *bucketPolls) tell(ctx context.Context, kv *KeyValue, p *bucketPoll, facts *bucketFacts, withNames bool) (n int, err error) {
	b.mu.Lock()
	followers := make([]*keyFollower, 0, len(p.followers))
	for f := range p.followers {
		followers = append(followers, f)
	}
	b.mu.Unlock()
	asked := make(map[string]map[string]uint64) // by filters
	for _, f := range followers {
		f.kv.facts.Store(facts)
		check := &bucketCheck{bucketFacts: facts}
		if !withNames {
			f.check.CompareAndSwap(nil, check)
			continue
		}
		filters := f.name()
		names, ok := asked[filters]
		if !ok {
			if names, err = kv.names(ctx, f.filters); err != nil {
				return n, err
			}
			asked[filters] = names
			n += len(names)
		}
		check.names = names
		f.check.Store(check)
	}
	return n, nil
}

// names asks for the keys, and the marks of deletions, that match filters.
func (kv *KeyValue) names(ctx context.Context, filters []string) (map[string]uint64, error) {
	names := make(map[string]uint64)
	for _, subject := range kv.subjects(filters) {
		found, err := kv.client.api.Subjects(ctx, kv.stream, subject)
		if err != nil {
			return nil, err
		}
		for subject, n := range found {
			names[strings.TrimPrefix(subject, kv.prefix)] = n
		}
	}
	return names, nil
}
