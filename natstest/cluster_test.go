package natstest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	start := time.Now()
	c := natstest.RunCluster(t, 3)
	t.Logf("ready in %v", time.Since(start))

	nc := connect(t, c.URLs()[0])
	js := stream(t, nc, 3) // at once: that is the promise
	publish(t, js)
	if s := c.Leader("missing"); s != nil {
		t.Fatalf("%s leads a stream that does not exist", s.Name())
	}

	first := c.WaitLeader("S")
	second := c.StepDown("S")
	if second == first || !slices.Contains(c.Servers(), second) {
		t.Fatalf("%s stepped down, and %s leads", first.Name(), second.Name())
	}
	publish(t, js)

	second.Stop()
	third := c.WaitLeader("S")
	if third == second {
		t.Fatalf("%s leads and is stopped", second.Name())
	}
	publish(t, js)
	c.WaitReady() // without the stopped one

	second.Restart()
	c.WaitReady()
	if n := messages(t, js); n != 3 {
		t.Fatalf("%d messages, want 3", n)
	}
	for _, s := range c.Servers() {
		jsz, err := s.Embedded().Jsz(&server.JSzOptions{Accounts: true, Streams: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range jsz.AccountDetails {
			for _, d := range a.Streams {
				if d.State.Msgs != 3 {
					t.Errorf("%s has %d messages of the stream, want 3", s.Name(), d.State.Msgs)
				}
			}
		}
	}
}

func TestClusterComesBack(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t, 3, natstest.WithUser("u", "secret"))
	urls := c.URLs()
	url := "nats://u:secret@" + urls[0][len("nats://"):]
	nc := connect(t, url)
	js := stream(t, nc, 3)
	publish(t, js)

	c.Stop()
	for _, s := range c.Servers() {
		s.Restart()
	}
	c.WaitReady()
	if !slices.Equal(urls, c.URLs()) {
		t.Fatalf("URLs changed from %v to %v", urls, c.URLs())
	}
	eventually(t, "the client reconnects", nc.IsConnected)
	if n := messages(t, js); n != 1 {
		t.Fatalf("%d messages, want 1", n)
	}
}

func TestClusterWithoutJetStream(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t, 2, natstest.WithoutJetStream(),
		natstest.WithConfig(func(o *server.Options) { o.Tags.Add("server:" + o.ServerName) }))
	for i, want := range []string{"n1", "n2"} {
		if s := c.Servers()[i]; s.Name() != want || !s.Embedded().Running() {
			t.Fatalf("server %d is %s, want %s", i, s.Name(), want)
		}
		vz, err := c.Servers()[i].Embedded().Varz(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !vz.Tags.Contains("server:" + want) {
			t.Fatalf("tags of %s: %v", want, vz.Tags)
		}
	}
	a, b := connect(t, c.URLs()[0]), connect(t, c.URLs()[1])
	sub, err := a.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a message crosses the cluster", func() bool {
		if err := b.Publish("x", nil); err != nil {
			t.Fatal(err)
		}
		_, err := sub.NextMsg(50 * time.Millisecond)
		return err == nil
	})
}

func TestClusterOfOne(t *testing.T) {
	t.Parallel()
	msg := failure(t, func(tb testing.TB) { natstest.RunCluster(tb, 1) })
	if !strings.Contains(msg, "use RunServer") {
		t.Fatalf("failed with %q", msg)
	}
}
