package nats

import "time"

// How long a chunk waits for its acknowledgement before it is sent again. It is large, so a slow link takes
// longer than an event does, and sending it again would make the link slower still.
const (
	chunkPatienceMin = 2 * time.Second
	chunkPatienceMax = 30 * time.Second
	// chunkPatience is how many times as long as the last one a chunk may take.
	chunkPatience = 4
	// chunksAtFirst is how many chunks are sent before the link is known.
	chunksAtFirst = 4
)

// chunkFlight is what makes the publish of a chunk another one than that of an event: it is more patient, and
// it stays in flight when its context ends, until its deadline, so that nothing comes after the chunks were
// purged. It is guarded by the publisher.
type chunkFlight struct {
	patience time.Duration
	ended    time.Time
}

// hasten lets the message stay in flight for at most d from now on.
func (f *pubAckFuture) hasten(d time.Duration) {
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	if at := time.Now().Add(d); at.Before(f.deadline) {
		f.deadline = at
	}
}

// uploadPace adapts an upload to its link.
type uploadPace struct {
	window   int           // chunks that may be in flight
	patience time.Duration // of the next chunk
}

// learn takes what came of a chunk, and tells whether it was sent more than once.
func (p *uploadPace) learn(f *pubAckFuture) (repeated bool) {
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	if f.attempts > 1 {
		// The chunks of one election are one reason.
		if f.chunk.patience >= p.patience {
			p.patience = min(2*p.patience, chunkPatienceMax)
		}
		p.window = max(p.window/2, 1)
		return true
	}
	took := f.chunk.ended.Sub(f.sent)
	p.patience = min(max(chunkPatience*took, chunkPatienceMin), chunkPatienceMax)
	p.window = min(p.window+1, objectWindow)
	return false
}
