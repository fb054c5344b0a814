package natstest_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestSilentServer(t *testing.T) {
	t.Parallel()
	const greeting = "INFO {}\r\n"
	conn, err := net.Dial("tcp", natstest.SilentServer(t, greeting)[len("nats://"):])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || line != greeting {
		t.Fatalf("greeted with %q, %v", line, err)
	}
	if _, err := conn.Write([]byte("CONNECT {}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if line, err := r.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the silent server says %q, %v", line, err)
	}

	if _, err := natsgo.Connect(natstest.SilentServer(t, ""), natsgo.Timeout(100*time.Millisecond)); err == nil {
		t.Fatal("connected to a silent server")
	}
}

func TestDeadHost(t *testing.T) {
	t.Parallel()
	address := natstest.DeadHost(t)[len("nats://"):]
	for range 3 {
		_, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		var op net.Error
		if !errors.As(err, &op) || !op.Timeout() {
			t.Fatalf("a dead host answers: %v", err)
		}
	}
}
