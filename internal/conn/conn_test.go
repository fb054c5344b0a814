package conn_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// heard records reports.
type heard struct {
	mu           sync.Mutex
	ups          int
	downs        []error
	failed       []*conn.ServerError
	dropped      []string
	unsubscribed []string
	refused      []error
	stays        []conn.Departure
	closed       bool
}

func (h *heard) do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}
func (h *heard) Up(bool, time.Duration)     { h.do(func() { h.ups++ }) }
func (h *heard) Down(err error)             { h.do(func() { h.downs = append(h.downs, err) }) }
func (h *heard) Failed(e *conn.ServerError) { h.do(func() { h.failed = append(h.failed, e) }) }
func (h *heard) Dropped(subject string, _ int, _ int64) {
	h.do(func() { h.dropped = append(h.dropped, subject) })
}
func (h *heard) Unsubscribed(subject string, _, _ int) {
	h.do(func() { h.unsubscribed = append(h.unsubscribed, subject) })
}
func (h *heard) Refused(err error)               { h.do(func() { h.refused = append(h.refused, err) }) }
func (h *heard) Stays(d conn.Departure, _ error) { h.do(func() { h.stays = append(h.stays, d) }) }
func (h *heard) Closed(error)                    { h.do(func() { h.closed = true }) }

// open returns a connection to the servers that is closed with the test.
func open(t testing.TB, change func(*conn.Options), urls ...string) (*conn.Conn, *heard) {
	t.Helper()
	c, h := connection(t, change)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, c.Open(ctx, func(context.Context) ([]string, error) { return urls, nil }))
	return c, h
}

func connection(t testing.TB, change func(*conn.Options)) (*conn.Conn, *heard) {
	t.Helper()
	n := natsgo.GetDefaultOptions()
	n.ReconnectWait, n.ReconnectBufSize, n.MaxReconnect = 20*time.Millisecond, 8<<20, -1
	n.AsyncErrorCB = func(*natsgo.Conn, *natsgo.Subscription, error) {}
	o := conn.Options{NATS: &n, ReconnectMaxWait: 100 * time.Millisecond, RequestTimeout: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	h := &heard{}
	c := conn.New(o, h)
	t.Cleanup(c.Close)
	return c, h
}

var within = conntest.Within

// certificates returns one for nats.test, and the pool that trusts it.
func certificates(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	authority := conntest.NewAuthority(t)
	authority.Issue(t, "server", nil)
	pair, err := tls.LoadX509KeyPair(authority.Path("server.pem"), authority.Path("server-key.pem"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(authority.Cert)
	return pair, pool
}

// kinds are ways in which a server may want to be talked to.
var kinds = map[string]func(t testing.TB, s *natsserver.Options, n *natsgo.Options){
	"plain": func(testing.TB, *natsserver.Options, *natsgo.Options) {},
	"TLS":   func(t testing.TB, s *natsserver.Options, n *natsgo.Options) { useTLS(t, s, n) },
	"mutual TLS": func(t testing.TB, s *natsserver.Options, n *natsgo.Options) {
		useTLS(t, s, n)
		s.TLSConfig.ClientAuth, s.TLSConfig.ClientCAs = tls.RequireAndVerifyClientCert, n.TLSConfig.RootCAs
		n.TLSConfig.Certificates = s.TLSConfig.Certificates
	},
	"TLS first": func(t testing.TB, s *natsserver.Options, n *natsgo.Options) {
		useTLS(t, s, n)
		s.TLSHandshakeFirst, n.TLSHandshakeFirst = true, true
	},
}

func useTLS(t testing.TB, s *natsserver.Options, n *natsgo.Options) {
	pair, pool := certificates(t)
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	s.TLSTimeout = 5
	n.Secure = true
	n.TLSConfig = &tls.Config{RootCAs: pool, ServerName: "nats.test", MinVersion: tls.VersionTLS12}
}

// Every call keeps to its context while the connection is cut, silenced, poisoned and forced to reconnect,
// with a silent server and a dead one in the pool.
func TestCallsDuringDisruptions(t *testing.T) {
	t.Parallel()
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n natsgo.Options
			s := natstest.RunServer(t, natstest.WithConfig(func(o *natsserver.Options) { kind(t, o, &n) }))
			p := natstest.NewProxy(t, s.URL())
			c, h := open(t, func(o *conn.Options) {
				o.NATS.Secure, o.NATS.TLSConfig, o.NATS.TLSHandshakeFirst = n.Secure, n.TLSConfig, n.TLSHandshakeFirst
				o.NATS.IgnoreDiscoveredServers = true
			}, p.URL())
			c.SetPatience(time.Second)
			require.NoError(t, c.SetServers([]string{natstest.SilentServer(t, ""), natstest.DeadHost(t), p.URL()}))
			_ = c.NATS().ForceReconnect()
			require.NoError(t, c.WaitPast(within(t, time.Minute), 1))
			const limit = 200 * time.Millisecond
			var worst, worstStats, calls atomic.Int64
			stop := make(chan struct{})
			var load sync.WaitGroup
			stalls, watched := conntest.WatchStalls()
			defer watched()
			for range 4 {
				load.Go(func() {
					data := make([]byte, 64<<10)
					for {
						select {
						case <-stop:
							return
						default:
						}
						ctx, cancel := context.WithTimeout(context.Background(), limit)
						begin := time.Now()
						_ = c.Publish(ctx, "x", "", nil, data)
						raise(&worst, stalls.Since(begin))
						begin = time.Now()
						c.Stats()
						raise(&worstStats, stalls.Since(begin))
						cancel()
						calls.Add(1)
						time.Sleep(2 * time.Millisecond)
					}
				})
			}
			for i := range 12 {
				_, breaks, _ := c.State()
				switch i % 4 {
				case 0:
					p.Cut()
					p.Restore()
				case 1:
					p.BlackHole()
					time.Sleep(2 * time.Second)
					p.Cut()
					p.Restore()
				case 2:
					_ = c.NATS().Publish(strings.Repeat("a", 5000), nil)
				case 3:
					_ = c.NATS().ForceReconnect()
				}
				require.NoError(t, c.WaitPast(within(t, time.Minute), breaks+1), "disruption %d: %v", i, c.LastError())
				require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
			}
			close(stop)
			load.Wait()
			t.Logf("%d calls, worst Publish %v, worst Stats %v", calls.Load(), time.Duration(worst.Load()), time.Duration(worstStats.Load()))
			require.Less(t, time.Duration(worst.Load()), limit+500*time.Millisecond)
			require.Less(t, time.Duration(worstStats.Load()), 250*time.Millisecond)
			h.do(func() {
				require.False(t, h.closed)
				for _, err := range h.downs {
					t.Log(err)
				}
			})
		})
	}
}

func raise(worst *atomic.Int64, d time.Duration) {
	for old := worst.Load(); int64(d) > old && !worst.CompareAndSwap(old, int64(d)); old = worst.Load() {
	}
}

// Forty servers at the end of a slow line.
func TestManyServersFarAway(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var urls []string
	for range 40 {
		p := natstest.NewProxy(t, s.URL())
		p.Delay(100 * time.Millisecond)
		urls = append(urls, p.URL())
	}
	stalls, watched := conntest.WatchStalls()
	defer watched()
	begin := time.Now()
	open(t, nil, urls...)
	took := stalls.Since(begin)
	t.Log(took)
	require.Less(t, took, 2*time.Second)
}

// A server so far away that all steps of connecting together take longer than the time for one.
func TestFarServer(t *testing.T) {
	t.Parallel()
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n natsgo.Options
			s := natstest.RunServer(t, natstest.WithConfig(func(o *natsserver.Options) {
				kind(t, o, &n)
				o.AuthTimeout, o.TLSTimeout = 30, 30
			}))
			p := natstest.NewProxy(t, s.URL())
			p.Delay(400 * time.Millisecond)
			begin := time.Now()
			c, _ := open(t, func(o *conn.Options) {
				o.NATS.Secure, o.NATS.TLSConfig, o.NATS.TLSHandshakeFirst = n.Secure, n.TLSConfig, n.TLSHandshakeFirst
				o.NATS.Timeout = time.Second
			}, p.URL())
			require.Greater(t, time.Since(begin), time.Second)
			require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
		})
	}
}

// Messages that waited for a connection and are larger than the server allows are told; the others arrive.
func TestOversizedMessagesThatWaited(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *natsserver.Options) { o.MaxPayload, o.MaxPending = 1024, 64<<20 }))
	s.Stop()
	c, h := connection(t, nil)
	require.NoError(t, c.OpenInBackground([]string{s.URL()}))
	got := make(chan *natsgo.Msg, 100)
	_, err := c.NATS().ChanSubscribe("m.*", got)
	require.NoError(t, err)
	require.NoError(t, c.Publish(t.Context(), "m.small", "", nil, []byte("PING\r\n")))
	require.NoError(t, c.Publish(t.Context(), "m.large", "", nil, bytes.Repeat([]byte("PUB m.x 2000\r\n"), 100)))
	require.NoError(t, c.Publish(t.Context(), "m.last", "", nil, nil))
	s.Restart()
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	require.Equal(t, "m.small", (<-got).Subject)
	require.Equal(t, "m.last", (<-got).Subject)
	require.Empty(t, got)
	require.Eventually(t, func() (all bool) {
		h.do(func() { all = len(h.dropped) == 1 })
		return all
	}, time.Minute, time.Millisecond)
	h.do(func() { require.Equal(t, []string{"m.large"}, h.dropped) })
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
}

// A slow line is not a dead one.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n natsgo.Options
			s := natstest.RunServer(t, natstest.WithConfig(func(o *natsserver.Options) { kind(t, o, &n) }))
			p := natstest.NewProxy(t, s.URL())
			c, h := open(t, func(o *conn.Options) {
				o.NATS.Secure, o.NATS.TLSConfig, o.NATS.TLSHandshakeFirst = n.Secure, n.TLSConfig, n.TLSHandshakeFirst
			}, p.URL())
			p.Throttle(512 << 10)
			for range 8 {
				require.NoError(t, c.Publish(within(t, 30*time.Second), "x", "", nil, make([]byte, 512<<10)))
			}
			require.NoError(t, c.RoundTrip(within(t, 60*time.Second), "test", ""))
			h.do(func() { require.Empty(t, h.downs) })
		})
	}
}

// What a closed connection had not sent waits no more, and is not told of as if it did.
func TestNothingIsBufferedAfterClose(t *testing.T) {
	t.Parallel()
	p := natstest.NewProxy(t, natstest.RunServer(t).URL())
	c, _ := open(t, nil, p.URL())
	p.Throttle(1 << 10)
	buffered := 0
	for buffered == 0 { // the system takes some, or a lot
		require.NoError(t, c.Publish(within(t, time.Minute), "x", "", nil, make([]byte, 1<<20)))
		_, buffered = c.Stats()
	}
	c.Close()
	_, buffered = c.Stats()
	require.Zero(t, buffered)
}

// What nats.go writes to a line that has just broken, because its own buffer is full, is lost like all that was on its
// way: a call goes on over the next one.
func TestLargeCallsOverBrokenLines(t *testing.T) {
	t.Parallel()
	p := natstest.NewProxy(t, natstest.RunServer(t).URL())
	c, _ := open(t, nil, p.URL())
	done, cut := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(cut)
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				p.Cut()
				p.Restore()
			}
		}
	}()
	large := make([]byte, 64<<10)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		ctx := within(t, time.Minute) // on a busy machine hardly a line stands before it is cut
		if c.Wait(ctx) != nil {
			continue
		}
		if err := c.Publish(ctx, "x", "", nil, large); err != nil {
			require.ErrorIs(t, err, fault.ErrConnectionLost)
		}
		if _, err := c.Exchange(ctx, &natsgo.Msg{Subject: "nobody", Data: large}, time.Minute); err != nil {
			require.ErrorIs(t, err, conn.ErrBroken)
		}
	}
	close(done)
	<-cut
}

// What -ERR says is known afterwards, and the connection goes on.
func TestFatalErrors(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	c, h := open(t, nil, s.URL())
	for i := range 3 {
		_, breaks, _ := c.State()
		require.NoError(t, c.NATS().Publish(strings.Repeat("a", 5000), nil))
		require.NoError(t, c.WaitPast(within(t, time.Minute), breaks+1))
		require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""), i)
	}
	require.Eventually(t, func() (all bool) {
		h.do(func() { all = len(h.downs) >= 3 })
		return all
	}, time.Minute, time.Millisecond)
	h.do(func() {
		require.Len(t, h.downs, 3)
		for _, err := range h.downs {
			require.Regexp(t, "(?i)control line|sent last: PUB \"aaa", err.Error())
		}
	})
}

// A connection that was made before TLS was demanded of its server is not used.
func TestTLSDemandedMeanwhile(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	other := natstest.RunServer(t)
	c, _ := open(t, nil, s.URL())
	require.NoError(t, c.SetServers([]string{s.URL(), other.URL()}))
	host := strings.TrimPrefix(other.URL(), "nats://")
	var once sync.Once
	err := c.Leave(within(t, time.Minute), []string{other.URL()}, true, func() []*natsgo.Subscription {
		once.Do(func() { // while it stands and waits
			require.NoError(t, c.SetServers([]string{s.URL(), "tls://" + host}))
		})
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, s.URL(), c.Server())
}

// A server that lets clients in and then ends the connection, again and again, is not asked without a pause.
func TestFlappingServer(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	p := natstest.NewProxy(t, s.URL())
	c, h := open(t, func(o *conn.Options) { o.NATS.ReconnectWait, o.ReconnectMaxWait = 400*time.Millisecond, time.Second }, p.URL())
	end := time.Now().Add(2 * time.Second)
	for time.Now().Before(end) {
		if c.IsUp() {
			p.Cut()
			p.Restore()
		}
		time.Sleep(time.Millisecond)
	}
	h.do(func() { require.Less(t, len(h.downs), 60) })
}

// A subscription that ends every connection is left out; the others go on.
func TestPoisonousSubscription(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	c, h := open(t, func(o *conn.Options) { o.MaxControlLine = 4096 }, s.URL())
	long := strings.Repeat("a", 5000)
	got := make(chan *natsgo.Msg, 1)
	_, err := c.NATS().ChanSubscribe("good", got)
	require.NoError(t, err)
	_, err = c.NATS().ChanSubscribe(long, make(chan *natsgo.Msg, 1))
	require.NoError(t, err)
	require.Eventually(t, func() (out bool) {
		h.do(func() { out = len(h.unsubscribed) > 0 })
		return out
	}, time.Minute, time.Millisecond)
	h.do(func() { require.Equal(t, long, h.unsubscribed[0]) })
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	require.NoError(t, c.Publish(t.Context(), "good", "", nil, nil))
	<-got
}

// A server that discovery once named tls:// gets no word without TLS.
func TestNoWordWithoutTLS(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	words := make(chan string, 100)
	url := serve(t, func(conn net.Conn) {
		_, _ = conn.Write([]byte(`INFO {"server_id":"x","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576}` + "\r\n"))
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 1000)
		n, _ := conn.Read(buf)
		words <- string(buf[:n])
	})
	c, h := open(t, nil, s.URL())
	require.NoError(t, c.SetServers([]string{strings.Replace(url, "nats", "TLS", 1)}))
	require.NoError(t, c.SetServers([]string{url}))
	s.Stop()
	require.Empty(t, <-words)
	require.Eventually(t, func() (failed bool) {
		h.do(func() { failed = len(h.failed) > 0 })
		return failed
	}, time.Minute, time.Millisecond)
	h.do(func() { require.ErrorIs(t, h.failed[0], natsgo.ErrSecureConnWanted) })
}

// alarmed is an asker whose alarm rings while the answer is being told.
type alarmed struct {
	*conn.Conn
	call  *conn.Call
	ended chan struct{}
}

func (a *alarmed) Answered(*natsgo.Msg) bool {
	a.Wake(a.call)
	a.call.End(true)
	close(a.ended)
	return true
}
func (a *alarmed) Again() bool { return true }
func (a *alarmed) Over() bool  { return false }
func (a *alarmed) GoOn()       {}

func TestAnswerBesideTheAlarm(t *testing.T) {
	t.Parallel()
	c, _ := open(t, nil, natstest.RunServer(t).URL())
	_, err := c.NATS().Subscribe("a", func(m *natsgo.Msg) { _ = m.Respond(nil) })
	require.NoError(t, err)
	asker := &alarmed{c, c.Ask(&natsgo.Msg{Subject: "a"}), make(chan struct{})}
	require.NoError(t, asker.call.Quietly(t.Context(), t.Context(), asker))
	<-asker.ended
}
