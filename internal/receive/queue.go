package receive

import (
	"sync"

	natsgo "github.com/nats-io/nats.go"
)

// queue is messages in their order, in blocks that all queues share: a backlog is neither copied as it
// grows nor kept when it is gone. A worker takes a block at a time, so that it and nats.go seldom meet at
// the lock.
type queue struct {
	head, tail  *block
	size, bytes int
}

const blockSize = 32

// block is messages from first to last.
type block struct {
	messages    [blockSize]*natsgo.Msg
	first, last int
	bytes       int
	next        *block
}

var blocks = sync.Pool{New: func() any { return new(block) }}

// push adds a message, to a block of at most that many.
func (q *queue) push(m *natsgo.Msg, most int) {
	if q.tail == nil || q.tail.last >= most {
		b := blocks.Get().(*block) // the pool holds nothing else
		if q.tail == nil {
			q.head = b
		} else {
			q.tail.next = b
		}
		q.tail = b
	}
	size := m.Size()
	q.tail.messages[q.tail.last] = m
	q.tail.last++
	q.tail.bytes += size
	q.size++
	q.bytes += size
}

// take returns the first block, or nil.
func (q *queue) take() *block {
	b := q.head
	if b == nil {
		return nil
	}
	if q.head = b.next; q.head == nil {
		q.tail = nil
	}
	b.next = nil
	q.size -= b.last - b.first
	q.bytes -= b.bytes
	return b
}

// putBack takes back what is left of a block.
func (q *queue) putBack(b *block) {
	b.next = q.head
	if q.head = b; q.tail == nil {
		q.tail = b
	}
	q.size += b.last - b.first
	q.bytes += b.bytes
}

// pop returns the next message of a block.
func (b *block) pop() *natsgo.Msg {
	m := b.messages[b.first]
	b.messages[b.first] = nil
	b.first++
	b.bytes -= m.Size()
	return m
}

// recycle gives the block to other queues.
func (b *block) recycle() {
	*b = block{}
	blocks.Put(b)
}
