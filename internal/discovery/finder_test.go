package discovery_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
)

// told are what a Finder has reported.
type told []string

func (t *told) FellBack(_ context.Context, err error) { *t = append(*t, "fell back: "+err.Error()) }
func (t *told) Skipped(wrong string)                  { *t = append(*t, "skipped: "+wrong) }
func (t *told) Ended(err error)                       { *t = append(*t, "ended: "+err.Error()) }
func (t *told) Unusable(err error)                    { *t = append(*t, "unusable: "+err.Error()) }
func (t *told) Changed(urls []string)                 { *t = append(*t, "changed: "+strings.Join(urls, " ")) }

func TestFind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reports told
		var named []string
		var within time.Duration
		f := &discovery.Finder{Configured: []string{"nats://own"}, Within: time.Minute, Reports: &reports}
		find := func(ctx context.Context) []string {
			urls, err := f.Find(ctx)
			require.NoError(t, err)
			return urls
		}
		assert.Equal(t, f.Configured, find(t.Context()))
		f.Resolver = resolverFunc(func(ctx context.Context) ([]string, error) {
			deadline, _ := ctx.Deadline()
			within = time.Until(deadline)
			return named, nil
		})
		assert.False(t, f.Watches())
		for range 2 {
			assert.Equal(t, f.Configured, find(t.Context()))
		}
		assert.Equal(t, time.Minute, within)
		_, updated := f.Get()
		assert.Zero(t, updated)
		named = []string{"nats://a", "x://b"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, named[:1], find(ctx))
		assert.Equal(t, time.Second/2, within, "the rest is for the servers")
		named = named[1:]
		assert.Equal(t, []string{"nats://a"}, find(t.Context()), "the last that were known")
		require.Len(t, reports, 2)
		assert.Contains(t, reports[0], "fell back: discover: the resolver found no server")
		assert.Contains(t, reports[1], "skipped: 1 of the servers")
		named = []string{"nats://a", "ws://b"}
		assert.Equal(t, named[:1], find(t.Context()), "those that are as the configured ones")
		f.Configured = []string{"ws://own"}
		assert.Equal(t, named[1:], find(t.Context()))
	})
}

// What a resolver names before it tells of changes is used, and what was named before is no change.
func TestFollowChanges(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		resolved := 0
		w := &watcherFunc{
			resolverFunc: func(context.Context) ([]string, error) { resolved++; return []string{"nats://first"}, nil },
			f: func(_ context.Context, _ int64, update func([]string)) error {
				update(nil) // which is no list
				for _, url := range []string{"nats://a", "x://b", "nats://refused", "nats://c"} {
					update([]string{url})
				}
				cancel()
				return nil
			},
		}
		var reports told
		f := &discovery.Finder{Configured: []string{"nats://own"}, Resolver: w, Within: time.Minute, Reports: &reports}
		var used []string
		if assert.True(t, f.Watches()); asked {
			f.Set([]string{"nats://a"})
		}
		f.Follow(ctx, func(urls []string) error {
			if used = append(used, urls...); urls[0] == "nats://refused" {
				return errors.New("refused")
			}
			return nil
		})
		want := []string{"nats://refused", "nats://c"}
		if !asked {
			want = append([]string{"nats://first", "nats://a"}, want...)
			assert.Equal(t, told{"changed: nats://first", "changed: nats://a"}, reports[:2])
			reports = reports[2:]
		}
		assert.Equal(t, want, used)
		assert.Equal(t, map[bool]int{true: 0, false: 1}[asked], resolved)
		require.Len(t, reports, 3)
		assert.Contains(t, reports[0], "unusable: discover: invalid configuration: 1 of the servers")
		assert.Equal(t, told{"unusable: refused", "changed: nats://c"}, reports[1:])
	}
}

func TestFollowPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var pauses []time.Duration
		last := time.Now()
		down := resolverFunc(func(context.Context) ([]string, error) {
			if pauses, last = append(pauses, time.Since(last)), time.Now(); len(pauses) == 12 {
				cancel()
			}
			return nil, errors.New("down")
		})
		discovery.Follow(ctx, down, time.Second, func([]string) {}, func(error) {})
		assert.InDelta(t, 200*time.Millisecond, pauses[1], float64(150*time.Millisecond))
		assert.InDelta(t, 10*time.Second, pauses[11], float64(5*time.Second))
	})
}
