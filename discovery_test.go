package nats_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
)

func newResolver(t *testing.T, cfg nats.ConsulConfig, service string) *nats.ConsulResolver {
	t.Helper()
	r, err := nats.NewConsulResolver(cfg, service)
	if err != nil {
		t.Fatalf("NewConsulResolver: %v", err)
	}
	return r
}

func resolve(t *testing.T, cfg nats.ConsulConfig, service string) []string {
	t.Helper()
	urls, err := newResolver(t, cfg, service).Resolve(t.Context())
	if err != nil {
		t.Fatalf("Resolve(%s): %v", service, err)
	}
	return urls
}

func resolveError(t *testing.T, cfg nats.ConsulConfig, service string) error {
	t.Helper()
	urls, err := newResolver(t, cfg, service).Resolve(t.Context())
	if err == nil {
		t.Fatalf("Resolve(%s) = %q, want an error", service, urls)
	}
	return err
}

func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %q", err, part)
		}
	}
}

// verifyNoLeak checks, after every cleanup that the test registers later, that no goroutine is left.
func verifyNoLeak(t *testing.T) {
	t.Helper()
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, current) })
}

func TestConsulResolverInstances(t *testing.T) {
	verifyNoLeak(t)
	consultest.ClearEnvironment(t)
	agent := consultest.Run(t)
	tagged := func(address string, port int) map[string]api.ServiceAddress {
		return map[string]api.ServiceAddress{"nats": {Address: address, Port: port}}
	}
	meta := func(pairs ...string) map[string]string {
		m := make(map[string]string, len(pairs)/2)
		for pair := range slices.Chunk(pairs, 2) {
			m[pair[0]] = pair[1]
		}
		return m
	}

	// Each case has a service of its own; the instances get their IDs from their positions.
	cases := map[string]struct {
		instances []consultest.Instance
		cfg       nats.ConsulConfig
		want      []string
	}{
		"passing-only": {
			instances: []consultest.Instance{
				{Address: "10.0.0.1", Port: 4222},
				{Address: "10.0.0.2", Port: 4222, Status: api.HealthWarning},
				{Address: "10.0.0.3", Port: 4222, Status: api.HealthCritical},
				{Address: "10.0.0.4", Port: 4222},
			},
			want: []string{"nats://10.0.0.1:4222", "nats://10.0.0.4:4222"},
		},
		"node-address": {
			instances: []consultest.Instance{{NodeAddress: "10.1.2.3", Port: 4222}},
			want:      []string{"nats://10.1.2.3:4222"},
		},
		"host-name": {
			instances: []consultest.Instance{{Address: "nats-1.example.internal", Port: 4222}},
			want:      []string{"nats://nats-1.example.internal:4222"},
		},
		"ipv6": {
			instances: []consultest.Instance{
				{Address: "2001:db8::1", Port: 4222},
				{NodeAddress: "2001:db8::2", Port: 4222},
				{Address: "10.0.0.1", TaggedAddresses: tagged("[2001:db8::3]", 4222), Port: 1},
			},
			want: []string{"nats://[2001:db8::1]:4222", "nats://[2001:db8::2]:4222", "nats://[2001:db8::3]:4222"},
		},
		"meta": {
			instances: []consultest.Instance{
				{Address: "10.0.0.1", Port: 8080, Meta: meta("nats_port", "4223")},
				{Address: "10.0.0.2", Port: 4222, Meta: meta("scheme", "tls")},
				{Address: "10.0.0.3", Port: 8080, Meta: meta("nats_port", "443", "scheme", "WSS")},
			},
			want: []string{"nats://10.0.0.1:4223", "tls://10.0.0.2:4222", "wss://10.0.0.3:443"},
		},
		"tagged-address": {
			instances: []consultest.Instance{
				{Address: "10.0.0.1", Port: 8080, TaggedAddresses: tagged("10.9.0.1", 4224)},
				{Address: "10.0.0.2", Port: 8080, TaggedAddresses: tagged("10.9.0.2", 4224), Meta: meta("nats_port", "1", "scheme", "tls")},
				{Address: "10.0.0.3", Port: 4222, TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "198.51.100.3", Port: 9}}},
			},
			want: []string{"nats://10.9.0.1:4224", "tls://10.9.0.2:4224", "nats://10.0.0.3:4222"},
		},
		"grpc-gateway": {
			instances: []consultest.Instance{
				{Address: "10.0.0.1", Port: 50056},
				{Address: "10.0.0.2", Port: 50056, Meta: meta("nats_port", "4222")},
				{Address: "10.0.0.3", Port: 50056, TaggedAddresses: tagged("10.0.0.3", 4222)},
				{Address: "10.0.0.4", Port: 4222},
			},
			want: []string{"nats://10.0.0.2:4222", "nats://10.0.0.3:4222", "nats://10.0.0.4:4222"},
		},
		"malformed": {
			instances: []consultest.Instance{
				{Address: "10.0.0.1", Port: 4222, Meta: meta("nats_port", "4222/tcp")},
				{Address: "10.0.0.2", Port: 4222, Meta: meta("nats_port", "65536")},
				{Address: "10.0.0.3", Port: 4222, Meta: meta("scheme", "http")},
				{Address: "10.0.0.4", Port: 0},
				{Address: "10.0.0.5:4222", Port: 4222},
				{Address: "10.0.0.6 ", Port: 4222},
				{Address: "user@10.0.0.7", Port: 4222},
				{Address: "10.0.0.8", Port: 4222},
			},
			want: []string{"nats://10.0.0.8:4222"},
		},
		"duplicates": {
			instances: []consultest.Instance{
				{Address: "10.0.0.1", Port: 4222},
				{Address: "10.0.0.1", Port: 8080, Meta: meta("nats_port", "4222")},
			},
			want: []string{"nats://10.0.0.1:4222"},
		},
		"tag": {
			instances: []consultest.Instance{
				{Address: "10.0.0.1", Port: 4222, Tags: []string{"blue"}},
				{Address: "10.0.0.2", Port: 4222, Tags: []string{"green", "canary"}},
			},
			cfg:  nats.ConsulConfig{Tag: "green"},
			want: []string{"nats://10.0.0.2:4222"},
		},
		"datacenter-and-near": {
			instances: []consultest.Instance{{Address: "10.0.0.1", Port: 4222}},
			cfg:       nats.ConsulConfig{Datacenter: "dc1", Near: "_agent"},
			want:      []string{"nats://10.0.0.1:4222"},
		},
	}
	for service, tc := range cases {
		t.Run(service, func(t *testing.T) {
			for i, in := range tc.instances {
				in.Service, in.ID = service, fmt.Sprintf("%s-%d", service, i)
				agent.Register(in)
			}
			tc.cfg.Address = agent.Address()
			// Consul promises no order, and the pool of nats.go is shuffled anyway.
			got := slices.Sorted(slices.Values(resolve(t, tc.cfg, service)))
			if !slices.Equal(got, slices.Sorted(slices.Values(tc.want))) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestConsulResolverFollowsTheCatalog(t *testing.T) {
	verifyNoLeak(t)
	consultest.ClearEnvironment(t)
	agent := consultest.Run(t)
	in := consultest.Instance{Service: "nats", Address: "10.0.0.1", Port: 4222}
	agent.Register(in)
	cfg := nats.ConsulConfig{Address: agent.Address(), Timeout: time.Second}

	// An address from the environment, and one with a scheme, reach the same agent.
	resolve(t, nats.ConsulConfig{Address: "http://" + agent.Address() + "/"}, "nats")
	t.Setenv("CONSUL_HTTP_ADDR", agent.Address())
	resolve(t, nats.ConsulConfig{}, "nats")

	r := newResolver(t, cfg, "nats")
	agent.SetStatus(in, api.HealthCritical)
	if _, err := r.Resolve(t.Context()); err == nil {
		t.Error("a critical instance was resolved")
	}
	agent.SetStatus(in, api.HealthPassing)
	if _, err := r.Resolve(t.Context()); err != nil {
		t.Errorf("after the instance recovered: %v", err)
	}

	agent.Stop()
	start := time.Now()
	if _, err := r.Resolve(t.Context()); err == nil {
		t.Error("resolved without an agent")
	}
	if d := since(start); d > 2*time.Second {
		t.Errorf("a stopped agent took %s", d)
	}
	agent.Restart()
	agent.Register(in)
	if _, err := r.Resolve(t.Context()); err != nil {
		t.Errorf("after the agent came back: %v", err)
	}
}

func TestConsulResolverNothingUsable(t *testing.T) {
	verifyNoLeak(t)
	consultest.ClearEnvironment(t)
	agent := consultest.Run(t)
	agent.Register(consultest.Instance{Service: "gateways", ID: "gw-1", Address: "10.0.0.1", Port: 50056})
	agent.Register(consultest.Instance{Service: "gateways", ID: "bad-1", Port: 4222, Meta: map[string]string{"nats_port": "x"}})

	err := resolveError(t, nats.ConsulConfig{Address: agent.Address()}, "unknown")
	wantText(t, err, `"unknown"`, "no passing instance", "the consul agent's own datacenter")

	cfg := nats.ConsulConfig{Address: agent.Address(), Datacenter: "dc1", Tag: "green"}
	wantText(t, resolveError(t, cfg, "gateways"), `"gateways"`, "no passing instance", `"dc1"`, `"green"`)

	cfg.Tag = ""
	wantText(t, resolveError(t, cfg, "gateways"), "no usable instance", "2 skipped", `"gw-1 on `, "gRPC gateway", "bad-1", `nats_port "x"`)

	cfg.Datacenter = "nowhere"
	wantText(t, resolveError(t, cfg, "gateways"), "No path to datacenter", `"gateways"`, `"nowhere"`)

	cfg = nats.ConsulConfig{Address: agent.Address(), Namespace: "team"}
	wantText(t, resolveError(t, cfg, "gateways"), "Namespaces are a Consul Enterprise feature")
}

func TestConsulResolverACL(t *testing.T) {
	verifyNoLeak(t)
	consultest.ClearEnvironment(t)
	agent := consultest.Run(t, consultest.WithACL())
	agent.Register(consultest.Instance{Service: "nats", Address: "10.0.0.1", Port: 4222})
	const rules = `service "nats" { policy = "read" } node_prefix "" { policy = "read" }`
	first, second := agent.CreateToken("first", rules), agent.CreateToken("second", rules)
	outsider := agent.CreateToken("outsider", `service "other" { policy = "read" }`)
	cfg := nats.ConsulConfig{Address: agent.Address()}

	wantText(t, resolveError(t, cfg, "nats"), "no consul ACL token was given", "permissions service:read and node:read")

	cfg.Token = outsider
	err := resolveError(t, cfg, "nats")
	if !errors.Is(err, nats.ErrPermission) {
		t.Errorf("a token without the permission: %v, want ErrPermission", err)
	}
	wantText(t, err, "permissions service:read and node:read")
	wantNoSecret(t, outsider, err.Error())

	cfg.Token = "00000000-aaaa-bbbb-cccc-secretsecret"
	err = resolveError(t, cfg, "nats")
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("an unknown token: %v, want ErrAuthorization", err)
	}
	wantNoSecret(t, cfg.Token, err.Error())

	cfg.Token = "secret\nsecret"
	wantNoSecret(t, "secret", resolveError(t, cfg, "nats").Error())

	cfg.Token = first
	resolve(t, cfg, "nats")

	// The environment's token file is as good as the config's, and rotates as well.
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fromConfig := newResolver(t, nats.ConsulConfig{Address: agent.Address(), TokenFile: file}, "nats")
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", file)
	fromEnvironment := newResolver(t, nats.ConsulConfig{Address: agent.Address()}, "nats")
	both := func(what string, check func(error) bool) {
		t.Helper()
		for name, r := range map[string]*nats.ConsulResolver{"config": fromConfig, "environment": fromEnvironment} {
			if _, err := r.Resolve(t.Context()); !check(err) {
				t.Errorf("%s, token file from the %s: %v", what, name, err)
			}
		}
	}
	ok := func(err error) bool { return err == nil }
	write(first)
	both("first token", ok)
	agent.DeleteToken(first)
	both("revoked token", func(err error) bool { return errors.Is(err, nats.ErrAuthorization) })
	write(second + "\n")
	both("second token", ok)
	write(" \n")
	both("empty file", func(err error) bool { return err != nil && strings.Contains(err.Error(), "is empty") })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	both("no file", func(err error) bool { return errors.Is(err, os.ErrNotExist) })
}

func TestConsulResolverSilentAgent(t *testing.T) {
	verifyNoLeak(t)
	consultest.ClearEnvironment(t)
	// The kernel accepts for this listener, and nobody ever answers.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	cfg := nats.ConsulConfig{Address: listener.Addr().String(), Timeout: 200 * time.Millisecond}

	start := time.Now()
	err = resolveError(t, cfg, "nats")
	if d := time.Since(start); d < cfg.Timeout || since(start) > 10*cfg.Timeout {
		t.Errorf("gave up after %s, want %s", d, cfg.Timeout)
	}
	if !errors.Is(err, nats.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want ErrTimeout and DeadlineExceeded", err)
	}

	cfg.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	stop := time.AfterFunc(50*time.Millisecond, cancel)
	defer stop.Stop()
	start = time.Now()
	_, err = newResolver(t, cfg, "nats").Resolve(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want Canceled", err)
	}
	if d := since(start); d > 2*time.Second {
		t.Errorf("cancelled after %s", d)
	}
}
