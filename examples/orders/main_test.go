package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/order"
)

const (
	customers = 4
	patience  = 2 * time.Minute // of a machine that has much else to do
)

// TestKilledProcesses runs the service as it runs in production: a server, the API and a worker, each a process. While
// orders come in, server and worker are killed. Every order that was taken is handled, once in its effect, and its trace
// leads from its handling to the request over HTTP.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	bin, store := build(t), t.TempDir()
	broker, front, apiOps, workerOps := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	startServer := func() *process {
		host, port, _ := net.SplitHostPort(broker)
		return start(t, filepath.Join(bin, "nats-server"), []string{"-js", "-sd", store, "-a", host, "-p", port})
	}
	startService := func(role, ops string) *process {
		return start(t, filepath.Join(bin, "orders"), []string{role}, "OTEL_TRACES_EXPORTER=console",
			"ISA_CLOUD_NATS_URLS=nats://"+broker, "ISA_CLOUD_NATS_RECONNECT_WAIT=100ms", "ORDERS_ADDR="+front, "ORDERS_OPS_ADDR="+ops)
	}
	server := startServer()
	api, worker := startService("api", apiOps), startService("worker", workerOps)
	for _, ops := range []string{apiOps, workerOps} {
		eventually(t, "it is ready", func() bool { return get(ops, "/readyz") == "200" })
	}

	client, err := nats.NewClient(&nats.Config{URLs: []string{"nats://" + broker}, JetStreamEnabled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	state := func(stream string) jetstream.StreamState {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		info, err := client.GetStreamInfo(ctx, stream)
		if err != nil {
			t.Fatal(err)
		}
		return info.State
	}
	confirmed := func() uint64 { return state("KV_order-confirmed").LastSeq }

	var placing sync.WaitGroup
	var placed [customers]int
	placingOn, enough := context.WithCancel(t.Context())
	for customer := range customers {
		placing.Go(func() {
			for ; placingOn.Err() == nil; time.Sleep(10 * time.Millisecond) {
				place(t, front, fmt.Sprintf("%d-%d", customer, placed[customer]), 1)
				placed[customer]++
			}
		})
	}
	goesOn := func() {
		seen := confirmed()
		eventually(t, "20 more orders are confirmed", func() bool { return confirmed() > seen+20 })
	}
	goesOn()
	_ = server.end(t, syscall.SIGKILL)
	startServer()
	goesOn()
	worker.signal(t, syscall.SIGSTOP)
	eventually(t, "the worker has orders in hand", func() bool {
		info, err := client.GetConsumerInfo(t.Context(), order.Stream, "order-worker")
		return err == nil && info.NumAckPending > 0
	})
	_ = worker.end(t, syscall.SIGKILL)
	killed := worker
	worker = startService("worker", workerOps)
	goesOn()
	enough()
	placing.Wait()
	place(t, front, "too-many", 1000)

	eventually(t, "no order is left", func() bool { return state(order.Stream).Msgs == 0 })
	var orders []string
	for customer, n := range placed {
		for i := range n {
			orders = append(orders, fmt.Sprintf("%d-%d", customer, i))
		}
	}
	if n := confirmed(); n != uint64(len(orders)) {
		t.Errorf("%d orders were taken, and %d confirmations were written", len(orders), n)
	}
	if letters := state(order.Stream + "_DLQ").Msgs; letters != 1 {
		t.Errorf("there are %d dead letters", letters)
	}
	for _, id := range orders {
		for _, path := range []string{"/orders/" + id, "/orders/" + id + "/receipt"} {
			if status := get(front, path); status != "200" {
				t.Errorf("%s: %s", path, status)
			}
		}
	}
	for _, ops := range []string{apiOps, workerOps} {
		for _, path := range []string{"/livez", "/readyz", "/metrics"} {
			if status := get(ops, path); status != "200" {
				t.Errorf("%s: %s", path, status)
			}
		}
	}
	for _, p := range []*process{api, worker} {
		if err := p.end(t, syscall.SIGTERM); err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
	traces := spans(t, api, killed, worker)
	for _, id := range orders {
		traces.check(t, id)
	}
	t.Logf("%d orders, %d handlings", len(orders)+1, traces.handlings)
}

// build makes the binaries: the service, and the server that go.mod names.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".", "github.com/nats-io/nats-server/v2")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return bin
}

// freeAddress returns an address below those of outgoing connections, which nobody else takes while its process is down.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// process is a process with its output.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr string
}

func start(t *testing.T, program string, args []string, env ...string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{exec.Command(program, args...), filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = create(t, p.stdout), create(t, p.stderr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if log, err := os.ReadFile(p.stderr); t.Failed() {
			t.Logf("%s: %s%v", p.cmd, log, err)
		}
	})
	return p
}

func create(t *testing.T, name string) *os.File {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// end sends a signal and returns how the process ended.
func (p *process) end(t *testing.T, signal os.Signal) error {
	t.Helper()
	p.signal(t, signal)
	return p.cmd.Wait()
}

func (p *process) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// place sends an order until it is taken, as its sender has to.
func place(t *testing.T, front, id string, quantity int) {
	body := fmt.Sprintf(`{"item":"apple","quantity":%d}`, quantity)
	for ; t.Context().Err() == nil; time.Sleep(20 * time.Millisecond) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+front+"/orders", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		request.Header.Set("Idempotency-Key", id)
		if do(request) == "202" {
			return
		}
	}
}

// get returns the status of an answer.
func get(address, path string) string {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err.Error()
	}
	return do(request)
}

func do(request *http.Request) string {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return strconv.Itoa(response.StatusCode)
}

// span is one as the console exporter prints it.
type span struct {
	Name        string
	SpanContext struct{ TraceID, SpanID string }
	Parent      struct{ SpanID string }
	Attributes  []struct {
		Key   string
		Value struct{ Value any }
	}
}

func (s *span) order() string {
	for _, a := range s.Attributes {
		if a.Key == string(order.ID) {
			return a.Value.Value.(string)
		}
	}
	return ""
}

// traces are spans by their IDs, and the handlings by order.
type traces struct {
	spans     map[string]*span
	handled   map[string][]*span
	handlings int
}

func spans(t *testing.T, processes ...*process) *traces {
	t.Helper()
	all := &traces{spans: map[string]*span{}, handled: map[string][]*span{}}
	for _, p := range processes {
		file, err := os.Open(p.stdout)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var s span
			if json.Unmarshal(lines.Bytes(), &s) != nil { // the last line of a process that was killed
				continue
			}
			all.spans[s.SpanContext.SpanID] = &s
			if strings.HasPrefix(s.Name, "process ") {
				all.handled[s.order()] = append(all.handled[s.order()], &s)
				all.handlings++
			}
		}
		_ = file.Close()
	}
	return all
}

// check looks for a handling of an order that descends, by way of its publish, from a request over HTTP.
func (all *traces) check(t *testing.T, id string) {
	t.Helper()
	var way []string
	for _, handled := range all.handled[id] {
		way = nil
		for s := handled; s != nil && s.SpanContext.TraceID == handled.SpanContext.TraceID; s = all.spans[s.Parent.SpanID] {
			way = append(way, s.Name)
		}
		if slices.Equal(way, []string{"process orders.placed", "send orders.placed", "POST /orders"}) {
			return
		}
	}
	t.Errorf("%s: its handling comes from %q", id, way)
}
