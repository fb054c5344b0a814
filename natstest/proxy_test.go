package natstest_test

import (
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestProxyCut(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t)
	p := natstest.NewProxy(t, srv.URL())
	disconnected := make(chan struct{}, 1)
	nc := connect(t, p.URL(), natsgo.DisconnectErrHandler(func(*natsgo.Conn, error) { disconnected <- struct{}{} }))
	if n := len(nc.DiscoveredServers()); n != 0 {
		t.Fatalf("the client knows %d ways past the proxy", n)
	}

	p.Cut()
	<-disconnected
	if _, err := natsgo.Connect(p.URL()); err == nil {
		t.Fatal("connected through a cut proxy")
	}
	eventually(t, "the server drops its side", func() bool { return srv.Embedded().NumClients() == 0 })

	p.Restore()
	eventually(t, "the client reconnects", nc.IsConnected)
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
}

func TestProxyBlackHole(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t)
	p := natstest.NewProxy(t, srv.URL())
	nc := connect(t, p.URL())
	sub, err := nc.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}

	p.BlackHole()
	if err := nc.Publish("x", []byte("held")); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(200 * time.Millisecond); err == nil {
		t.Fatal("a flush came back through a black hole")
	}
	if _, err := natsgo.Connect(p.URL(), natsgo.Timeout(200*time.Millisecond)); err == nil {
		t.Fatal("connected through a black hole")
	}
	if !nc.IsConnected() {
		t.Fatal("the black hole disconnected the client")
	}

	p.Restore()
	if m, err := sub.NextMsg(time.Minute); err != nil || string(m.Data) != "held" {
		t.Fatalf("after the recovery: %v", err)
	}

	// The end of the server is hidden as well.
	p.BlackHole()
	srv.Stop()
	if err := nc.FlushTimeout(200 * time.Millisecond); err == nil || !nc.IsConnected() {
		t.Fatalf("the client learnt that the server stopped: %v", err)
	}
	p.Restore()
	eventually(t, "the client learns that the server stopped", nc.IsReconnecting)
}

func TestProxyDelay(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t)
	p := natstest.NewProxy(t, srv.URL()[len("nats://"):]) // host:port
	nc := connect(t, p.URL())
	const d = 100 * time.Millisecond
	p.Delay(d)
	rtt, err := nc.RTT()
	if err != nil {
		t.Fatal(err)
	}
	if rtt < 2*d {
		t.Fatalf("round trip of %v with a delay of %v each way", rtt, d)
	}

	// Latency, not throughput: all of this is under way at once.
	sub, err := nc.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	start := time.Now()
	for range n {
		if err := nc.Publish("x", make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if _, err := sub.NextMsg(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > n*d/4 {
		t.Fatalf("%d messages took %v", n, took)
	}

	// What is still held does not wait for a delay that is over.
	p.Delay(time.Hour)
	flushed := make(chan error, 1)
	go func() { flushed <- nc.FlushTimeout(time.Minute) }()
	p.Restore()
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
}

func TestProxyThrottle(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t)
	p := natstest.NewProxy(t, srv.URL())
	nc := connect(t, p.URL())
	p.Throttle(100_000)
	start := time.Now()
	if err := nc.Publish("x", make([]byte, 50_000)); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Fatalf("50 kB at 100 kB/s took %v", took)
	}

	// A rate so low that nothing moves, until the limit ends.
	p.Throttle(1)
	flushed := make(chan error, 1)
	go func() {
		_ = nc.Publish("x", make([]byte, 50_000))
		flushed <- nc.FlushTimeout(time.Minute)
	}()
	p.Throttle(0)
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
}

func TestProxyFollowsItsTarget(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t, natstest.WithUser("u", "secret"))
	p := natstest.NewProxy(t, "nats://u:secret@"+srv.URL()[len("nats://"):])
	nc := connect(t, p.URL()) // with the credentials of the target's URL
	srv.Stop()
	eventually(t, "the client is disconnected", nc.IsReconnecting)
	srv.Restart()
	eventually(t, "the client reconnects", nc.IsConnected)
}

func TestProxyTarget(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"", "nowhere", "nats://u:secret@nowhere", "nats://u:secret@:4222", "nats://u:secret@h:port"} {
		msg := failure(t, func(tb testing.TB) { natstest.NewProxy(tb, target) })
		if !strings.Contains(msg, "host and port") || strings.Contains(msg, "secret") {
			t.Fatalf("target %q failed with %q", target, msg)
		}
	}
}
