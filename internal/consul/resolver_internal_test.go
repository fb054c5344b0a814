package consul

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

func TestResolverWarnings(t *testing.T) {
	consultest.ClearEnvironment(t)
	agent := consultest.Run(t, consultest.WithACL())
	agent.Register(consultest.Instance{Service: "nats", ID: "gw", Address: "10.0.0.1", Port: 7000})
	agent.Register(consultest.Instance{Service: "nats", ID: "bad", Address: "10.0.0.2"})
	good := consultest.Instance{Service: "nats", ID: "good", Address: "10.0.0.3", Port: 50056}
	agent.Register(good)
	var logged lockedLog
	r, err := New(Config{Address: agent.Address(), Token: agent.ManagementToken()}, "nats", 7000, logged.logger())
	if err != nil {
		t.Fatal(err)
	}

	urls, index, err := r.query(t.Context(), 0)
	if err != nil || !slices.Equal(urls, []string{"nats://10.0.0.3:50056"}) || index == 0 {
		t.Fatalf("query = %q, index %d, %v", urls, index, err)
	}
	text := logged.String()
	if strings.Count(text, "level=WARN") != 1 {
		t.Errorf("log %q, want one warning", text)
	}
	for _, part := range []string{"gw on", "port 7000 is the gRPC gateway's", "bad on", "service port 0", "service=nats"} {
		if !strings.Contains(text, part) {
			t.Errorf("log %q does not mention %q", text, part)
		}
	}
	if strings.Contains(text, agent.ManagementToken()) {
		t.Errorf("token in log %q", text)
	}

	// With the index of an answer, the query waits for the next change.
	short, cancelShort := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancelShort()
	if _, _, err := r.query(short, index); !errors.Is(err, fault.ErrTimeout) {
		t.Errorf("blocking query without a change: %v, want ErrTimeout", err)
	}
	type answer struct {
		index uint64
		err   error
	}
	answers := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, next, err := r.query(ctx, index)
		answers <- answer{next, err}
	}()
	agent.SetStatus(good, api.HealthCritical)
	a := <-answers
	if a.index <= index || a.err == nil || !strings.Contains(a.err.Error(), "no usable instance") {
		t.Errorf("blocking query = index %d (was %d), %v; want a later index and no usable instance", a.index, index, a.err)
	}
}

func TestInstanceURLsIncomplete(t *testing.T) {
	entries := []*api.ServiceEntry{
		nil,
		{},
		{Service: &api.AgentService{ID: "s", Port: 4222}, Node: &api.Node{Node: "n"}},
		{Service: &api.AgentService{ID: "s", Port: 4222, Address: "0.0.0.0"}, Node: &api.Node{Node: "n"}},
		{Service: &api.AgentService{ID: "s", Port: 4222, Address: "fe80::1%eth0"}, Node: &api.Node{Node: "n"}},
		{Service: &api.AgentService{ID: "s", Port: -1, Address: "10.0.0.1"}, Node: &api.Node{Node: "n"}},
	}
	urls, skipped := instanceURLs(entries, 0)
	if len(urls) != 0 || !strings.Contains(skipped, "6 skipped") || !strings.Contains(skipped, "1 more") {
		t.Errorf("got %q and %q, which does not count", urls, skipped)
	}
}

func TestExcerpt(t *testing.T) {
	if got := excerpt("token abc, abc", "abc"); got != "token ***, ***" {
		t.Errorf("excerpt = %q", got)
	}
	if got := excerpt(strings.Repeat("ä", 500), ""); len(got) > 203 || !strings.HasSuffix(got, "...") {
		t.Errorf("excerpt has %d bytes: %q", len(got), got)
	}
}
