package faults_test

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// Sixteen writers, each with a connection, and a server that is killed meanwhile.
func TestModifyLosesNothing(t *testing.T) {
	const writers = 16
	times := 1000
	if testing.Short() {
		times = 50
	}
	for _, kills := range []int{0, 3} {
		t.Run(fmt.Sprint("kills=", kills), func(t *testing.T) {
			times := times
			if kills > 0 {
				times = min(times, 100)
			}
			servers := publishServers(t, 1)
			ctx := within(t, 5*time.Minute)
			kv, err := publishClient(t, servers).CreateKeyValue(ctx, "conf")
			require.NoError(t, err)
			var doubted sync.Map
			var wg sync.WaitGroup
			for i := range writers {
				mine, err := publishClient(t, servers).GetKeyValue(ctx, "conf")
				require.NoError(t, err)
				wg.Go(func() {
					for n := range times {
						_, err := mine.Modify(ctx, "n", func(old []byte) ([]byte, error) {
							count, err := strconv.Atoi("0" + string(old))
							return strconv.AppendInt(nil, int64(count+1), 10), err
						})
						if kills > 0 && err != nil { // it says that it does not know
							assert.ErrorIs(t, err, nats.ErrTimeout)
							doubted.Store([2]int{i, n}, true)
						} else if !assert.NoError(t, err) {
							return
						}
					}
				})
			}
			for range kills {
				time.Sleep(500 * time.Millisecond) // the load
				servers[0].kill()
				servers[0].start()
			}
			wg.Wait()
			doubts := 0
			doubted.Range(func(any, any) bool { doubts++; return true })
			entry, err := kv.Get(ctx, "n")
			require.NoError(t, err)
			count, err := strconv.Atoi(string(entry.Value()))
			require.NoError(t, err)
			assert.LessOrEqual(t, count, writers*times)
			assert.GreaterOrEqual(t, count, writers*times-doubts)
			t.Attr("figure", fmt.Sprintf("%d increments by %d writers, %d in doubt: %d", writers*times, writers, doubts, count))
		})
	}
}

// A hundred thousand keys of 100 B in memory.
func TestCacheIsSmall(t *testing.T) {
	const keys, limit = 100_000, 40 << 20
	client := publishClient(t, publishServers(t, 1)) // its memory is not this process's
	ctx := within(t, 5*time.Minute)
	kv, err := client.CreateKeyValue(ctx, "conf", nats.WithKeyValueStorage(jetstream.MemoryStorage))
	require.NoError(t, err)
	messages := func(yield func(*nats.Message) bool) {
		for i := range keys {
			if !yield(&nats.Message{Subject: fmt.Sprintf("$KV.conf.service.%06d", i), Data: make([]byte, 100)}) {
				return
			}
		}
	}
	for _, err := range client.PublishSeq(ctx, messages) {
		require.NoError(t, err)
	}
	heap := func() int64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	before, begin := heap(), time.Now()
	cache, err := kv.Cached(ctx)
	require.NoError(t, err)
	took, used := time.Since(begin), heap()-before
	assert.Equal(t, keys, cache.Len())
	assert.LessOrEqual(t, used, int64(limit))
	t.Logf("%d keys of 100 B: %.1f MiB, read in %v", keys, float64(used)/(1<<20), took.Round(time.Millisecond))
	require.NoError(t, cache.Close())
}
