package natstest_test

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// connect fails the test when there is no connection, and closes it at the end.
func connect(t testing.TB, url string, opts ...natsgo.Option) *natsgo.Conn {
	t.Helper()
	opts = append([]natsgo.Option{natsgo.ReconnectWait(20 * time.Millisecond), natsgo.MaxReconnects(-1), natsgo.Timeout(20 * time.Second)}, opts...)
	nc, err := natsgo.Connect(url, opts...)
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// stream creates a file stream S of that many replicas on the subjects S.>.
func stream(t testing.TB, nc *natsgo.Conn, replicas int) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"S.>"}, Replicas: replicas})
	if err != nil {
		t.Fatalf("create a stream with %d replicas: %v", replicas, err)
	}
	return js
}

// publish stores one message in the stream S, trying again while a leader is elected.
func publish(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	eventually(t, "publish to the stream", func() bool {
		_, err := js.Publish(t.Context(), "S.a", []byte("x"))
		return err == nil
	})
}

func messages(t testing.TB, js jetstream.JetStream) uint64 {
	t.Helper()
	var s jetstream.Stream
	eventually(t, "look up the stream", func() (found bool) {
		var err error
		s, err = js.Stream(t.Context(), "S") // upstream asks once, maybe while the server comes up
		return err == nil
	})
	return s.CachedInfo().State.Msgs
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}
