package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/freeport"
)

// publishServerEnv, set in the environment, makes the test binary a NATS server: one in the test's own
// process can be stopped but not killed.
const publishServerEnv = "NATS_FAULTS_SERVER"

// publishServer is a server in a process of its own.
type publishServer struct {
	tb   testing.TB
	spec publishSpec
	cmd  *exec.Cmd
}

type publishSpec struct {
	Name, Store string
	Port        int
	ClusterPort int   // 0 for a single server
	Routes      []int // the cluster ports of all
}

func (s *publishServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.spec.Port) }

// start runs the server and returns when it accepts connections.
func (s *publishServer) start() {
	s.tb.Helper()
	spec, err := json.Marshal(s.spec)
	require.NoError(s.tb, err)
	s.cmd = process(s.tb, publishServerEnv, string(spec))
	// It ends with the pipe, so that none outlives a test that is killed.
	_, err = s.cmd.StdinPipe()
	require.NoError(s.tb, err)
	out, err := s.cmd.StdoutPipe()
	require.NoError(s.tb, err)
	require.NoError(s.tb, s.cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(s.tb, err, "the server did not start")
}

// kill ends the server as kill -9 does.
func (s *publishServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// publishServe is the process of a publishServer. It runs until its standard input ends.
func publishServe(text string) error {
	var spec publishSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	o := &server.Options{
		Host: "127.0.0.1", Port: spec.Port, ServerName: spec.Name,
		JetStream: true, StoreDir: spec.Store, NoSigs: true, NoLog: true,
	}
	if spec.ClusterPort != 0 {
		o.Cluster = server.ClusterOpts{Name: "faults", Host: "127.0.0.1", Port: spec.ClusterPort}
		for _, port := range spec.Routes {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: fmt.Sprint("127.0.0.1:", port)})
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return fmt.Errorf("server %s did not start", spec.Name)
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	s.Shutdown()
	return nil
}

// publishServers starts n servers, as a cluster when there is more than one, that are killed with the
// test.
func publishServers(tb testing.TB, n int) []*publishServer {
	tb.Helper()
	dir := tb.TempDir()
	ports := freeport.For(tb, 2*n)
	servers := make([]*publishServer, n)
	for i := range servers {
		spec := publishSpec{Name: fmt.Sprint("n", i+1), Store: fmt.Sprint(dir, "/", i), Port: ports[i]}
		if n > 1 {
			spec.ClusterPort, spec.Routes = ports[n+i], ports[n:]
		}
		servers[i] = &publishServer{tb: tb, spec: spec}
		servers[i].start()
		tb.Cleanup(servers[i].kill)
	}
	return servers
}

// publishClient returns a client of servers that is closed with the test.
func publishClient(tb testing.TB, servers []*publishServer) *nats.Client {
	tb.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.url())
	}
	client, err := nats.NewClient(&nats.Config{
		URLs: urls, JetStreamEnabled: true, ReconnectWait: 20 * time.Millisecond, ReconnectMaxWait: 100 * time.Millisecond,
		RequestTimeout: time.Minute,
	})
	require.NoError(tb, err)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Shutdown(ctx)
	})
	return client
}

// publishLeader returns the server that leads the stream, once all its replicas have caught up.
func publishLeader(tb testing.TB, client *nats.Client, servers []*publishServer, stream string) *publishServer {
	tb.Helper()
	var leader *publishServer
	publishEventually(tb, "the replicas have caught up", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		info, err := client.GetStreamInfo(ctx, stream)
		if err != nil || info.Cluster == nil || len(info.Cluster.Replicas) != len(servers)-1 {
			return false
		}
		for _, replica := range info.Cluster.Replicas {
			if !replica.Current || replica.Offline {
				return false
			}
		}
		for _, s := range servers {
			if s.spec.Name == info.Cluster.Leader {
				leader = s
			}
		}
		return leader != nil
	})
	return leader
}

// publishEventually polls until ok.
func publishEventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 3 minutes: %s", what)
		}
	}
}

// publishStored returns how often the stream has each message ID.
func publishStored(tb testing.TB, client *nats.Client, stream string) (stored map[string]int) {
	tb.Helper()
	// The reader is upstream's, which an election ends.
	publishEventually(tb, "the stream is read", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var err error
		if stored, err = publishRead(ctx, client, stream); err != nil {
			tb.Logf("read anew: %v", err)
		}
		return err == nil
	})
	return stored
}

func publishRead(ctx context.Context, client *nats.Client, stream string) (map[string]int, error) {
	info, err := client.GetStreamInfo(ctx, stream)
	if err != nil {
		return nil, err
	}
	stored := make(map[string]int, info.State.Msgs)
	asked, cancel := context.WithTimeout(ctx, 10*time.Second) // upstream asks once
	defer cancel()
	consumer, err := client.JetStream().OrderedConsumer(asked, stream, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		return nil, err
	}
	for left := int(info.State.Msgs); left > 0; {
		batch, err := consumer.Fetch(min(left, 5000), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return nil, err
		}
		for msg := range batch.Messages() {
			stored[msg.Headers().Get(jetstream.MsgIDHeader)]++
			left--
		}
		if err := batch.Error(); err != nil {
			return nil, err
		}
	}
	return stored, nil
}
