package main

import (
	"io"
	"net"
)

// The lines of the floor: what an operation waits for at least.
const (
	memcpy    = "memcpy"
	oneWay    = "loopback"
	roundTrip = "round trip"
)

// floors are the workloads of the machine itself, one for each size of payload that another workload has,
// but for those of which a few would fill the memory.
func floors(all []workload) (found []workload) {
	seen := map[int]bool{}
	for _, w := range all {
		if w.size == 0 || w.size > 64<<20 || w.line == "" || seen[w.size] {
			continue
		}
		seen[w.size] = true
		size, n := w.size, min(200_000, 256<<20/w.size)
		found = append(found, workload{name: floorName(size), n: n, size: size, sides: sides{
			memcpy:    func(r *round) { r.copies(size) },
			oneWay:    func(r *round) { r.sends(size) },
			roundTrip: func(r *round) { r.n = min(r.n, 5000); r.echoes(size) },
		}})
	}
	return found
}

func floorName(size int) string { return "floor, " + bytesText(size) }

func (r *round) copies(size int) {
	from, to := make([]byte, size), make([]byte, size)
	r.each(func() error { copy(to, from); return nil })
}

// sends writes payloads in one direction, small ones together, as clients do.
func (r *round) sends(size int) {
	const buffer = 32 << 10
	conn, peer := r.pair()
	together := max(1, min(buffer/size, r.n))
	data := make([]byte, together*size)
	writes := max(1, r.n/together)
	r.n = writes * together
	read := make(chan error, 1)
	r.measure(func() {
		go func() {
			_, err := io.CopyN(io.Discard, onlyReader{peer}, int64(writes*len(data)))
			read <- err
		}()
		for range writes {
			_, err := conn.Write(data)
			r.check(err)
		}
		r.check(<-read)
	})
}

// onlyReader hides what would have the kernel copy by itself.
type onlyReader struct{ io.Reader }

func (r *round) echoes(size int) {
	conn, peer := r.pair()
	go func() {
		data := make([]byte, size)
		for {
			if _, err := io.ReadFull(peer, data); err != nil {
				return // the round closes its lines
			}
			if _, err := peer.Write(data); err != nil {
				return
			}
		}
	}()
	data := make([]byte, size)
	r.each(func() error {
		if _, err := conn.Write(data); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, data)
		return err
	})
}

// pair is both ends of a line over the loopback.
func (r *round) pair() (near, far net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.check(err)
	defer func() { _ = l.Close() }()
	near, err = net.Dial("tcp", l.Addr().String())
	r.check(err)
	r.ends = append(r.ends, func() { _ = near.Close() })
	far, err = l.Accept()
	r.check(err)
	r.ends = append(r.ends, func() { _ = far.Close() })
	return near, far
}
