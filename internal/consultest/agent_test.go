package consultest_test

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func passing(t *testing.T, agent *consultest.Agent, service string) int {
	t.Helper()
	entries, _, err := agent.Client().Health().Service(service, "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestAgent(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	in := consultest.Instance{Service: "s", Port: 4222}

	agent.Register(in)
	if n := passing(t, agent, "s"); n != 1 {
		t.Fatalf("%d instances pass after Register, want 1", n)
	}
	agent.SetStatus(in, api.HealthCritical)
	if n := passing(t, agent, "s"); n != 0 {
		t.Fatalf("%d instances pass after SetStatus, want 0", n)
	}
	agent.SetStatus(in, api.HealthPassing)
	if n := passing(t, agent, "s"); n != 1 {
		t.Fatalf("%d instances pass after the second SetStatus, want 1", n)
	}
	agent.Deregister(in)
	if n := passing(t, agent, "s"); n != 0 {
		t.Fatalf("%d instances pass after Deregister, want 0", n)
	}
}

func TestAgentOutage(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	in := consultest.Instance{Service: "s", Port: 4222}
	agent.Register(in)
	address := agent.Address()

	agent.Stop()
	agent.Stop()
	if _, err := agent.Client().Status().Leader(); err == nil {
		t.Fatal("the agent answers after Stop")
	}

	start := time.Now()
	agent.Restart()
	t.Logf("restarted in %s", time.Since(start))
	if agent.Address() != address {
		t.Fatalf("address %s after Restart, want %s", agent.Address(), address)
	}
	if n := passing(t, agent, "s"); n != 0 {
		t.Fatalf("%d instances survived the restart of an agent without a disk", n)
	}
	agent.Register(in)
	if n := passing(t, agent, "s"); n != 1 {
		t.Fatalf("%d instances pass after the restart, want 1", n)
	}
}

func TestAgentACL(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t, consultest.WithACL())
	agent.Register(consultest.Instance{Service: "s", Port: 4222})
	token := agent.CreateToken("reader", `service "s" { policy = "read" } node_prefix "" { policy = "read" }`)

	count := func(token string) (int, error) {
		entries, _, err := agent.Client().Health().Service("s", "", true, &api.QueryOptions{Token: token})
		return len(entries), err
	}
	if n, err := count(token); err != nil || n != 1 {
		t.Fatalf("reader sees %d instances, error %v, want 1", n, err)
	}
	if n, err := count("anonymous"); err != nil || n != 0 {
		t.Fatalf("a stranger sees %d instances, error %v, want 0", n, err)
	}
	agent.DeleteToken(token)
	if _, err := count(token); err == nil {
		t.Fatal("a deleted token still works")
	}
}
