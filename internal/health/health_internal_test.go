package health

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// However many ask, the server is asked once a second, and nothing runs when nobody asks.
func TestOneQuestionASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked, warned int
		l := &lookout{
			Ask:  func(context.Context) error { asked++; time.Sleep(time.Millisecond); return nil },
			Warn: func(context.Context) []string { warned++; return []string{"mind the gap"} },
		}
		assert.Zero(t, l.Last())
		for range 1000 {
			var probes sync.WaitGroup
			for range 10 {
				probes.Go(func() {
					seen := l.Look(t.Context(), t.Context())
					assert.Equal(t, sighting{RTT: time.Millisecond, Warnings: []string{"mind the gap"}}, seen)
				})
			}
			probes.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		assert.InDelta(t, 10, asked, 1)
		assert.Equal(t, 1, warned)
		asked = 0
		for _, pause := range []time.Duration{warnEvery, lookEvery - time.Millisecond, warnEvery - lookEvery - 2*time.Millisecond} { // a look takes one
			time.Sleep(pause)
			l.Look(t.Context(), t.Context())
		}
		assert.Equal(t, []int{3, 3}, []int{asked, warned}, "at the very moment, too")
	})
}

// A server that is silent keeps nobody waiting, and is silent since it was asked first.
func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		var silent, slow atomic.Bool
		l := &lookout{
			Ask: func(ctx context.Context) error {
				if silent.Load() {
					<-ctx.Done()
				}
				if slow.Load() {
					time.Sleep(time.Second)
				}
				return ctx.Err()
			},
			Warn: func(context.Context) []string { time.Sleep(time.Second); return nil },
		}
		assert.Zero(t, l.Look(t.Context(), life).Silent, "it has answered, although there is more to ask")
		silent.Store(true)
		time.Sleep(time.Second)
		begin := time.Now()
		for range 600 {
			before := time.Now()
			seen := l.Look(t.Context(), life)
			assert.Equal(t, begin, seen.Silent)
			assert.LessOrEqual(t, time.Since(before), 300*time.Millisecond)
			time.Sleep(20 * time.Millisecond)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		before := time.Now()
		l.Look(gone, life)
		assert.Equal(t, before, time.Now(), "whoever has gone does not wait")

		silent.Store(false)
		slow.Store(true)
		time.Sleep(6 * time.Second)
		l.Look(t.Context(), life)
		time.Sleep(time.Second)
		assert.Zero(t, l.Look(t.Context(), life).Silent.Sub(time.Now().Add(-300*time.Millisecond)), "asked anew, no answer yet")
		time.Sleep(time.Second)
		assert.Zero(t, l.Last().Silent)
		end()
		begun := l.Last()
		time.Sleep(5 * time.Second)
		assert.Equal(t, begun, l.Last())
	})
}

func TestHandler(t *testing.T) {
	t.Parallel()
	answers := map[string]answer{
		"well": {}, "ill": {Reason: "a cold"}, "told": {details: &details{Server: "nats://a", RTT: 0.5}},
	}
	probes := map[string]func(context.Context) answer{}
	for name, one := range answers {
		probes[name] = func(context.Context) answer { return one }
	}
	h := handler(probes)
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{http.MethodGet, "/well", 200, `{"status":"ok"}`},
		{http.MethodGet, "/ill/", 503, `{"status":"unavailable","reason":"a cold"}`},
		{http.MethodGet, "/told", 200, `{"status":"ok","server":"nats://a","connected":false,"outage_seconds":0,"rtt_seconds":0.5,"reconnects":0}`},
		{http.MethodHead, "/ill", 503, ""},
		{http.MethodPost, "/well", 405, "Method Not Allowed"},
		{http.MethodGet, "/", 404, "404 page not found"},
		{http.MethodGet, "/well/told", 404, "404 page not found"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		assert.Equal(t, c.status, w.Code, c)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"), c)
		switch {
		case c.body == "":
			assert.Zero(t, w.Body.Len())
			assert.Equal(t, "43", w.Header().Get("Content-Length"))
		case c.status == 404, c.status == 405:
			assert.Equal(t, c.body+"\n", w.Body.String())
		default:
			assert.JSONEq(t, c.body, w.Body.String())
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
		}
	}
	w := httptest.NewRecorder()
	http.StripPrefix("/nats/", h).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/nats/well", nil))
	assert.Equal(t, http.StatusOK, w.Code)
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	soon, late := &x509.Certificate{NotAfter: time.Now().Add(6 * 24 * time.Hour)}, &x509.Certificate{NotAfter: time.Now().Add(8 * 24 * time.Hour)}
	found := ending("server", soon, late)
	require.Len(t, found, 1)
	assert.Contains(t, found[0], "the server's TLS certificate")
	assert.Contains(t, found[0], soon.NotAfter.UTC().Format(time.RFC3339))

	assert.Empty(t, Account(nil))
	var info jetstream.AccountInfo
	require.NoError(t, json.Unmarshal([]byte(`{
		"storage": 80, "reserved_storage": 90, "memory": 80, "streams": 5, "consumers": 9,
		"limits": {"max_storage": 100, "max_memory": 100, "max_streams": -1, "max_consumers": 0},
		"tiers": {"R3": {"streams": 9, "limits": {"max_streams": 10}}}}`), &info))
	assert.Equal(t, []string{
		"the account uses 90 % of its storage: 90 of 100", "the account's tier R3 uses 90 % of its streams: 9 of 10",
	}, Account(&info))
}

func BenchmarkLook(b *testing.B) {
	l := &lookout{Ask: func(context.Context) error { return nil }, Warn: func(context.Context) []string { return nil }}
	b.ReportAllocs()
	for b.Loop() {
		l.Look(b.Context(), b.Context())
	}
}
