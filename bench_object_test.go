package nats_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

var benchObjects = []int{1 << 10, 1 << 20, 16 << 20}

// benchStores returns a bucket both ways.
func benchStores(b *testing.B) (*bench, jetstream.ObjectStore, *nats.ObjectStore) {
	b.Helper()
	x, ctx := newBench(b), context.Background()
	store, err := x.client.CreateObjectStore(ctx, "bench")
	require.NoError(b, err)
	upstream, err := x.js.ObjectStore(ctx, "bench")
	require.NoError(b, err)
	return x, upstream, store
}

func benchObject(size int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), size/16) }

func BenchmarkObjectPut(b *testing.B) {
	_, upstream, store := benchStores(b)
	ctx := context.Background()
	for _, size := range benchObjects {
		data := benchObject(size)
		pair(b, fmt.Sprintf("size=%d/", size), size, func(b *testing.B) {
			for b.Loop() {
				if _, err := upstream.PutBytes(ctx, "object", data); err != nil {
					b.Fatal(err)
				}
			}
		}, func(b *testing.B) {
			for b.Loop() {
				if _, err := store.PutBytes(ctx, "object", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkObjectPutShortReads puts what a source gives in pieces of 4 KiB, of which upstream makes chunks.
func BenchmarkObjectPutShortReads(b *testing.B) {
	_, upstream, store := benchStores(b)
	ctx, meta := context.Background(), jetstream.ObjectMeta{Name: "object"}
	const size = 1 << 20
	data := benchObject(size)
	source := func() io.Reader {
		r := bytes.NewReader(data)
		return readerFunc(func(p []byte) (int, error) { return r.Read(p[:min(len(p), 4<<10)]) })
	}
	pair(b, fmt.Sprintf("size=%d/", size), size, func(b *testing.B) {
		for b.Loop() {
			if _, err := upstream.Put(ctx, meta, source()); err != nil {
				b.Fatal(err)
			}
		}
	}, func(b *testing.B) {
		for b.Loop() {
			if _, err := store.Put(ctx, meta, source()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkObjectGet(b *testing.B) {
	_, upstream, store := benchStores(b)
	ctx := context.Background()
	for _, size := range benchObjects {
		_, err := store.PutBytes(ctx, "object", benchObject(size))
		require.NoError(b, err)
		read := func(b *testing.B, result jetstream.ObjectResult, err error) {
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, result); err != nil || n != int64(size) {
				b.Fatal(n, err)
			}
			_ = result.Close()
		}
		pair(b, fmt.Sprintf("size=%d/", size), size, func(b *testing.B) {
			for b.Loop() {
				result, err := upstream.Get(ctx, "object")
				read(b, result, err)
			}
		}, func(b *testing.B) {
			for b.Loop() {
				result, err := store.Get(ctx, "object")
				read(b, result, err)
			}
		})
	}
}

func BenchmarkObjectGetBytes(b *testing.B) {
	_, upstream, store := benchStores(b)
	ctx := context.Background()
	for _, size := range benchObjects {
		_, err := store.PutBytes(ctx, "object", benchObject(size))
		require.NoError(b, err)
		pair(b, fmt.Sprintf("size=%d/", size), size, func(b *testing.B) {
			for b.Loop() {
				if got, err := upstream.GetBytes(ctx, "object"); err != nil || len(got) != size {
					b.Fatal(len(got), err)
				}
			}
		}, func(b *testing.B) {
			for b.Loop() {
				if got, err := store.GetBytes(ctx, "object"); err != nil || len(got) != size {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}
