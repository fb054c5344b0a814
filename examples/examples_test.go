package examples_test

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// expected holds, for every example, lines of its output, or parts of them, in their order.
var expected = map[string][]string{
	"configfile": {
		"cluster_id: isa-cloud-cluster",
		`token="***"`,
		`as "isa-cloud-cluster/configfile"`,
		`did you mean "ISA_CLOUD_NATS_USERNAME"?`,
	},
	"configcentre": {
		"loaded   3 keys in one pass, stale: false",
		"read     database.url = postgres://db.internal/app",
		"read     api.color is not set: the default holds",
		"a million times",
		"refused  api.timeout = 99s",
		"in force api.timeout = 20s",
		"limits   {Requests:100 Burst:20}", "changed  {Requests:200 Burst:20}", "deleted  api.limits",
	},
	"consul": {
		`for the service "nats-service"`,
		"Falling back to the configured URLs",
		"one of the configured URLs.",
	},
	"deadletter": {
		"failed    order 2", "dead      {\"id\": after 1 deliveries", "after 3 deliveries: no tax rate for Atlantis",
		"would     replay 1", "replayed  1", "left      1 dead letter",
	},
	"doctor": {
		"passed       configuration", "not checked  consul", "passed       authentication", "passed       jetstream", "passed       clock",
		"Nothing that was looked at is wrong.",
	},
	"events": {"welcomed ada@example.com", "welcomed grace@example.com"},
	"filedistribution": {
		"publisher  upload 100% |██████████████████████████████|",
		"publisher  stored v1.2.3, 33554432 bytes in 128 chunks",
		"installed v1.2.3, digest verified",
		"installed v1.2.3, digest verified",
	},
	"exactlyonce": {
		"published 35 times: 20 stored, 15 dropped", "handled   26 times, 6 of them again", "booked    20 payments, each once",
	},
	"interceptors": {
		"published 11 messages at 50 a second: it took 200 ms: true", "failed    3 requests",
		"refused   the next one at once: true", "answered  once the circuit had let one try: true",
	},
	"jetstream": {
		"stored    order-5 as sequence 5",
		"duplicate true",
		"refused   order-3, delivery 1",
		"handled   order-3, delivery 2",
		"left      0 to pull, 0 to acknowledge",
	},
	"leader": {"elected   ", "left the elections", "took over ", `refused   "too late": its token is not the latest`, "stored    second"},
	"migration": {
		"1. the old code on the new connection handled 1 to 6", "3. the new consumer handled 7 to 15",
		"4. stopped, with 0 messages not handled",
	},
	"objectstore": {"uploaded  v1.2.3, 2097152 bytes", "has v1.2.3", "has v1.2.3", "has v1.2.3", "listed    v1.2.3"},
	"pubsub": {
		"events.user.created", "-> events.>", "-> events.*.created",
		"events.order.created", "-> events.>", "-> events.*.created", "-> events.order.*", "-> events.order.created",
		"events.order.shipped", "-> events.>", "-> events.order.*",
		"events.order.shipped.confirmed", "-> events.>",
	},
	"queue": {"worker", "8 tasks, each handled by one worker; the audit log saw all 8."},
	"quickstart": {
		"1. Connect",
		"2. Publish", `= {"user_id":"123"}`,
		"3. Spread", "12 tasks, by worker:",
		"4. Ask", `answered    "pong"`,
		"5. Store", "left        0 to pull, 0 to acknowledge",
		"6. Keep", "watched     feature.flag = disabled, revision 2",
		"7. Distribute", "listed      report.pdf, 500000 bytes",
		"Done in",
	},
	"requestreply": {"apple    150 cents", "no such product: unicorn", "no price: no responders"},
	"taskqueue":    {"worker-1", "worker-4", "100 different tasks done"},
}

// modules are the examples that are modules of their own, for what the library must not depend on.
var modules = []string{"filedistribution", "interceptors"}

// The examples are built once for all that is to be seen of them.
func TestExamples(t *testing.T) {
	t.Parallel()
	names, bin := folders(t), t.TempDir()
	output, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	for _, name := range modules {
		output, err := exec.CommandContext(t.Context(), "go", "build", "-C", name, "-o", filepath.Join(bin, name), ".").CombinedOutput()
		if err != nil {
			t.Fatalf("go build: %v\n%s", err, output)
		}
	}
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		runAlone(t, bin, names)
	})
	t.Run("shared", func(t *testing.T) {
		t.Parallel()
		runShared(t, bin, names)
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		runInterrupted(t, bin, names)
	})
	t.Run("discovery", func(t *testing.T) {
		t.Parallel()
		runDiscovery(t, bin)
	})
	t.Run("doctor", func(t *testing.T) {
		t.Parallel()
		cmd := command(t.Context(), filepath.Join(bin, "doctor"), "ISA_CLOUD_NATS_USE_CONSUL=true", "ISA_CLOUD_NATS_URLS="+natstest.RunServer(t).URL())
		cmd.Args = append(cmd.Args, "-config", "configs/sdk/nats.yaml", "-publish", "orders.created", "-streams", "ORDERS")
		output, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Error(err)
		}
		check(t, string(output), []string{"failed       consul", "passed       publish", "failed       stream", "-> create it", "2 of the checks failed"})
	})
}

// runAlone: every example runs where no server listens, and leaves no file behind.
func runAlone(t *testing.T, bin string, names []string) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			temp := t.TempDir()
			// No test server ever gets port 1, unlike a port that is free at the moment.
			output := run(t, filepath.Join(bin, name), "ISA_CLOUD_NATS_URLS=nats://127.0.0.1:1", "TMPDIR="+temp)
			check(t, output, append([]string{"started an embedded NATS server"}, expected[name]...))
			left, err := os.ReadDir(temp)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind in the temporary directory: %v (%v)", left, err)
			}
		})
	}
}

// runShared: every example runs against a server in use, and leaves there what it found and nothing
// else.
func runShared(t *testing.T, bin string, names []string) {
	url := natstest.RunServer(t).URL()
	client := connect(t, url)
	for _, cfg := range []jetstream.StreamConfig{{Name: "ORDERS", Subjects: []string{"orders.>"}}, {Name: "EVENTS", Subjects: []string{"events.>"}}} {
		if _, err := client.CreateStream(t.Context(), &cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CreateKeyValue(t.Context(), "app-config"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateObjectStore(t.Context(), "releases"); err != nil {
		t.Fatal(err)
	}
	before := streams(t, client)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			output := run(t, filepath.Join(bin, name), "ISA_CLOUD_NATS_URLS="+url)
			check(t, output, append([]string{"Using the NATS server at"}, expected[name]...))
			if after := streams(t, client); !maps.Equal(before, after) {
				t.Fatalf("streams and their messages were %v and are %v", before, after)
			}
		})
	}
}

// runDiscovery: an agent that is reachable and knows the service is followed.
func runDiscovery(t *testing.T, bin string) {
	agent := consultest.Run(t)
	server := natstest.RunServer(t).URL()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	agent.Register(consultest.Instance{Service: "nats-service", Address: u.Hostname(), Port: port})
	output := run(t, filepath.Join(bin, "consul"),
		"ISA_CLOUD_NATS_URLS=nats://127.0.0.1:1", "CONSUL_HTTP_ADDR="+agent.Address())
	check(t, output, []string{"Connected to " + server + ", which Consul named.", "A round trip takes"})
}

func connect(t *testing.T, url string) *nats.Client {
	t.Helper()
	client, err := nats.NewClient(&nats.Config{URLs: []string{url}, JetStreamEnabled: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// streams returns the number of messages by stream; buckets are streams too.
func streams(t *testing.T, client *nats.Client) map[string]uint64 {
	t.Helper()
	lister := client.JetStream().ListStreams(t.Context())
	messages := map[string]uint64{}
	for info := range lister.Info() {
		messages[info.Config.Name] = info.State.Msgs
	}
	if err := lister.Err(); err != nil {
		t.Fatal(err)
	}
	return messages
}

// folders returns the examples, each of which must have an expectation. Orders is a service, with tests of its own.
func folders(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && entry.Name() != "internal" && entry.Name() != "orders" {
			names = append(names, entry.Name())
		}
	}
	if known := slices.Sorted(maps.Keys(expected)); !slices.Equal(names, known) {
		t.Fatalf("the examples are %q, but there are expectations for %q", names, known)
	}
	return names
}

// run runs a program and returns its output.
func run(t *testing.T, program string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := command(ctx, program, env...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, output)
	}
	return string(output)
}

// command is a program that runs in the repository's root, where it finds configs/sdk/nats.yaml, in an
// environment without servers of the machine's own.
func command(ctx context.Context, program string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir = ".."
	inherited := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "ISA_CLOUD_NATS_") || strings.HasPrefix(variable, "CONSUL_")
	})
	cmd.Env = slices.Concat(inherited, []string{"CONSUL_HTTP_ADDR=127.0.0.1:1"}, env) // the last one holds
	return cmd
}

// check looks for the parts in their order.
func check(t *testing.T, output string, parts []string) {
	t.Helper()
	rest := output
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Errorf("%q is not in the output, or not in its place:\n%s", part, output)
			return
		}
		rest = after
	}
}
