package object

import (
	"context"
	"time"
)

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

// pace adapts an upload to its link.
type pace struct {
	window   int           // chunks that may be in flight
	patience time.Duration // of the next chunk
}

// learn takes what came of a chunk, and tells whether it was sent more than once.
func (p *pace) learn(chunk chunk) (repeated bool) {
	took, repeated := chunk.future.Took()
	if repeated {
		// The chunks of one election are one reason.
		if chunk.patience >= p.patience {
			p.patience = min(2*p.patience, chunkPatienceMax)
		}
		p.window = max(p.window/2, 1)
		return true
	}
	p.patience = min(max(chunkPatience*took, chunkPatienceMin), chunkPatienceMax)
	p.window = min(p.window+1, mostFlying)
	return false
}

// outliving returns a context for what goes on when ctx is cancelled, until its deadline.
func outliving(ctx context.Context) (context.Context, context.CancelFunc) {
	own := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(own, deadline)
	}
	return context.WithCancel(own)
}
