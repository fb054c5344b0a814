package nats_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// shape returns what a JSON document has where, without the values.
func shape(t *testing.T, data []byte) any {
	t.Helper()
	var document any
	require.NoError(t, json.Unmarshal(data, &document))
	var of func(v any) any
	of = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			shapes := map[string]any{}
			for key, value := range v {
				shapes[key] = of(value)
			}
			return shapes
		case []any:
			for i := range v {
				v[i] = of(v[i])
			}
			return v
		case nil:
			return "null"
		}
		return ""
	}
	return of(document)
}

// Who looks for services finds ours as those of micro: on the same subjects, with the same words.
func TestServicesAreFound(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, nc := connect(t, s, nil), raw(t, s)
	meta, order := map[string]string{"team": "checkout"}, map[string]string{"format": "json"}
	theirs, err := micro.AddService(nc, micro.Config{Name: "theirs", Version: "1.0.0-rc.1+build", Description: "Orders", Metadata: meta})
	require.NoError(t, err)
	defer func() { require.NoError(t, theirs.Stop()) }()
	answer := micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(nil) })
	require.NoError(t, theirs.AddGroup("theirs.v2").AddEndpoint("get", answer, micro.WithEndpointMetadata(order)))
	require.NoError(t, theirs.AddEndpoint("list", answer, micro.WithEndpointSubject("theirs.all"), micro.WithEndpointQueueGroupDisabled()))
	handle := func(*nats.Message) ([]byte, error) { return nil, nil }
	ours, err := client.AddService(context.Background(),
		nats.ServiceConfig{Name: "ours", Version: "1.0.0-rc.1+build", Description: "Orders", Metadata: meta},
		append(nats.GroupEndpoints("ours", nats.GroupEndpoints("v2", nats.Endpoint{Name: "get", Handler: handle, Metadata: order})...),
			nats.Endpoint{Name: "list", Subject: "ours.all", EveryInstance: true, Handler: handle})...)
	require.NoError(t, err)
	require.NoError(t, nc.Flush())

	want := ours.Info()
	assert.Equal(t, micro.InfoResponseType, want.Type)
	assert.Equal(t, []micro.EndpointInfo{
		{Name: "get", Subject: "ours.v2.get", QueueGroup: "q", Metadata: order},
		{Name: "list", Subject: "ours.all"},
	}, want.Endpoints)
	meta["team"], want.Metadata["team"] = "changed", "changed"
	assert.Equal(t, "checkout", ours.Info().Metadata["team"], "it is the service's own")
	for verb, into := range map[micro.Verb]any{micro.PingVerb: &micro.Ping{}, micro.InfoVerb: &micro.Info{}, micro.StatsVerb: &micro.Stats{}} {
		subject, err := micro.ControlSubject(verb, "theirs", theirs.Info().ID)
		require.NoError(t, err)
		model, err := nc.Request(subject, nil, patience)
		require.NoError(t, err)
		for _, id := range []string{"", ours.Info().ID} {
			subject, err = micro.ControlSubject(verb, "ours", id)
			require.NoError(t, err)
			found, err := nc.Request(subject, nil, patience)
			require.NoError(t, err)
			assert.Equal(t, shape(t, model.Data), shape(t, found.Data), subject)
			require.NoError(t, json.Unmarshal(found.Data, into))
		}
		subject, err = micro.ControlSubject(verb, "", "")
		require.NoError(t, err)
		var all []string
		for msg, err := range client.RequestMany(context.Background(), subject, nil, nats.WithMaxReplies(2)) {
			require.NoError(t, err)
			var identity micro.ServiceIdentity
			require.NoError(t, msg.DecodeJSON(&identity))
			all = append(all, identity.Name)
		}
		assert.ElementsMatch(t, []string{"ours", "theirs"}, all)
		switch v := into.(type) {
		case *micro.Info:
			assert.Equal(t, ours.Info(), *v)
		case *micro.Stats:
			assert.Equal(t, ours.Stats(), *v)
		case *micro.Ping:
			assert.Equal(t, ours.Info().ServiceIdentity, v.ServiceIdentity)
			assert.Equal(t, micro.PingResponseType, v.Type)
		}
	}
}

// Endpoints answer as HandleRequests does, and every way to end is counted, without what only concerns the service.
func TestServiceCounts(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, caller := connect(t, s, nil), connect(t, s, nil)
	ctx := context.Background()
	begun, release := make(chan struct{}, 3), make(chan struct{})
	service, err := client.AddService(ctx, nats.ServiceConfig{Name: "orders", Version: "1.0.0", Queue: "workers"},
		nats.Endpoint{Name: "any", Subject: "orders.*", Handler: func(msg *nats.Message) ([]byte, error) {
			switch msg.Subject {
			case "orders.error":
				return nil, errors.New("password of the database")
			case "orders.refuse":
				return nil, &nats.ServiceError{Code: 404, Description: "no such order"}
			case "orders.panic":
				panic("password of the database")
			case "orders.exit":
				runtime.Goexit()
			case "orders.large":
				return make([]byte, 2<<20), nil
			case "orders.slow":
				begun <- struct{}{}
				<-release
			}
			return []byte("ok"), nil
		}, Options: []nats.SubscribeOption{nats.WithMaxInFlight(1)}},
		nats.Endpoint{Name: "other", Queue: "q", Handler: func(*nats.Message) ([]byte, error) { return nil, nil }})
	require.NoError(t, err)
	stats := func() *micro.EndpointStats { return service.Stats().Endpoints[0] }
	for i, c := range []struct{ subject, last string }{
		{"orders.ok", ""},
		{"orders.error", "500:Internal Server Error"},
		{"orders.refuse", "404:no such order"},
		{"orders.panic", "500:Internal Server Error"},
		{"orders.large", "413:the answer is too large"},
		{"orders.exit", "500:Internal Server Error"},
	} {
		_, err := caller.Request(ctx, c.subject, nil, patience)
		assert.Equal(t, c.last == "", err == nil, c.subject)
		eventually(t, c.subject+" is counted", func() bool { return stats().NumRequests == i+1 })
		assert.Equal(t, i, stats().NumErrors)
		assert.Equal(t, c.last, stats().LastError)
	}
	var slow sync.WaitGroup
	slow.Go(func() {
		_, err := caller.Request(ctx, "orders.slow", nil, patience)
		assert.NoError(t, err)
	})
	<-begun
	_, err = caller.Request(ctx, "orders.ok", nil, patience)
	require.ErrorIs(t, err, &nats.ServiceError{Code: 503})
	close(release)
	slow.Wait()
	eventually(t, "all counted", func() bool { return stats().NumRequests == 8 })
	got := stats()
	assert.Equal(t, 6, got.NumErrors)
	assert.Equal(t, "503:Service Unavailable", got.LastError)
	assert.Equal(t, "workers", got.QueueGroup)
	assert.Positive(t, got.ProcessingTime)
	assert.Equal(t, got.ProcessingTime/8, got.AverageProcessingTime)
	assert.Equal(t, "q", service.Stats().Endpoints[1].QueueGroup)
	started := service.Stats().Started
	service.Reset()
	assert.Equal(t, micro.EndpointStats{Name: "any", Subject: "orders.*", QueueGroup: "workers"}, *stats())
	assert.False(t, service.Stats().Started.Before(started))
}

// Who looks for services is answered, however much there is to be told.
func TestServicesOfManyWords(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, caller, ctx := connect(t, s, nil), connect(t, s, nil), context.Background()
	long := strings.Repeat("x", 2<<20)
	for name, meta := range map[string]map[string]string{"described": {"readme": long}, "failing": nil} {
		service, err := client.AddService(ctx, nats.ServiceConfig{Name: name, Version: "1.0.0", Metadata: meta},
			nats.Endpoint{Name: name, Handler: func(*nats.Message) ([]byte, error) {
				return nil, &nats.ServiceError{Code: 409, Description: long}
			}})
		require.NoError(t, err)
		_, err = caller.Request(ctx, name, nil, patience)
		require.ErrorIs(t, err, &nats.ServiceError{Code: 409})
		eventually(t, "it is counted", func() bool { return service.Stats().Endpoints[0].NumErrors == 1 })
	}
	_, err := caller.Request(ctx, "$SRV.INFO.described", nil, patience)
	require.ErrorIs(t, err, &nats.ServiceError{Code: 413})
	_, err = caller.Request(ctx, "$SRV.STATS.failing", nil, patience)
	require.NoError(t, err)
}

func TestServiceEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*nats.Client, *nats.Service, context.CancelFunc) error{
		"Stop":    func(_ *nats.Client, s *nats.Service, _ context.CancelFunc) error { return s.Stop(context.Background()) },
		"Close":   func(c *nats.Client, _ *nats.Service, _ context.CancelFunc) error { return c.Close() },
		"context": func(_ *nats.Client, _ *nats.Service, cancel context.CancelFunc) error { cancel(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			client, caller := connect(t, s, nil), connect(t, s, nil)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			begun, release := make(chan struct{}, 3), make(chan struct{})
			service, err := client.AddService(ctx, nats.ServiceConfig{Name: "orders", Version: "1.0.0"},
				nats.Endpoint{Name: "orders", Handler: func(*nats.Message) ([]byte, error) {
					begun <- struct{}{}
					<-release
					return nil, nil
				}})
			require.NoError(t, err)
			var asked sync.WaitGroup
			for range 3 {
				asked.Go(func() {
					_, err := caller.Request(context.Background(), "orders", nil, patience)
					assert.NoError(t, err, "what has reached the service is answered")
				})
			}
			<-begun
			eventually(t, "the others wait", func() bool { return client.Stats().Pending == 2 })
			ended := make(chan error)
			go func() { ended <- end(client, service, cancel) }()
			eventually(t, "nobody is found", func() bool {
				_, err := caller.Request(context.Background(), "$SRV.PING.orders", nil, patience)
				return errors.Is(err, nats.ErrNoResponders)
			})
			close(release)
			require.NoError(t, <-ended)
			asked.Wait()
			_, err = caller.Request(context.Background(), "orders", nil, patience)
			require.ErrorIs(t, err, nats.ErrNoResponders)
			eventually(t, "nothing is left", func() bool { return client.Stats().Subscriptions == 0 })
			require.NoError(t, service.Stop(context.Background()))
		})
	}
}

func TestServicesThatCannotBe(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ok := func(*nats.Message) ([]byte, error) { return nil, nil }
	for name, c := range map[string]struct {
		name, version string
		endpoint      nats.Endpoint
		want          error
	}{
		"name":     {"a.b", "1.0.0", nats.Endpoint{Name: "a", Handler: ok}, nats.ErrInvalidArgument},
		"no name":  {"", "1.0.0", nats.Endpoint{Name: "a", Handler: ok}, nats.ErrInvalidArgument},
		"version":  {"a", "v1", nats.Endpoint{Name: "a", Handler: ok}, nats.ErrInvalidArgument},
		"endpoint": {"a", "1.0.0", nats.Endpoint{Subject: "a", Handler: ok}, nats.ErrInvalidArgument},
		"handler":  {"a", "1.0.0", nats.Endpoint{Name: "a"}, nats.ErrInvalidArgument},
		"subject":  {"a", "1.0.0", nats.Endpoint{Name: "a", Subject: "a..b", Handler: ok}, nats.ErrInvalidSubject},
		"queue":    {"a", "1.0.0", nats.Endpoint{Name: "a", Queue: "a b", Handler: ok}, nats.ErrInvalidSubject},
		"option":   {"a", "1.0.0", nats.Endpoint{Name: "a", Handler: ok, Options: slices.Repeat([]nats.SubscribeOption{nil}, 2)}, nil},
	} {
		service, err := client.AddService(context.Background(), nats.ServiceConfig{Name: c.name, Version: c.version}, c.endpoint)
		if c.want != nil {
			require.ErrorIs(t, err, c.want, name)
			assert.Nil(t, service)
			continue
		}
		require.NoError(t, err, name)
		require.NoError(t, service.Stop(within(t, time.Minute)))
		require.ErrorIs(t, service.Stop(nil), nats.ErrInvalidArgument) //nolint:staticcheck // on purpose
	}
	eventually(t, "nothing is left of them", func() bool { return client.Stats().Subscriptions == 0 })
	_, err := client.AddService(nil, nats.ServiceConfig{Name: "a", Version: "1.0.0"}) //nolint:staticcheck // on purpose
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Whoever has asked a micro service of Conn when the client closes gets the answer.
func TestCloseDrainsMicroServices(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, nc := connect(t, s, nil), raw(t, s)
	begun, release := make(chan struct{}, 3), make(chan struct{})
	service, err := micro.AddService(client.Conn(), micro.Config{Name: "Orders", Version: "1.0.0"})
	require.NoError(t, err)
	handle := micro.HandlerFunc(func(r micro.Request) {
		begun <- struct{}{}
		<-release
		assert.NoError(t, r.Respond([]byte("done")))
	})
	require.NoError(t, service.AddEndpoint("get", handle))
	require.NoError(t, service.AddGroup("v2").AddEndpoint("get", handle))
	require.NoError(t, client.Conn().Flush())
	before := client.Conn().Stats().InMsgs
	var answers sync.WaitGroup
	for _, subject := range []string{"get", "get", "v2.get"} {
		answers.Go(func() {
			answer, err := nc.Request(subject, nil, patience)
			if assert.NoError(t, err) {
				assert.Equal(t, "done", string(answer.Data))
			}
		})
	}
	<-begun
	<-begun
	eventually(t, "one more waits", func() bool { return client.Conn().Stats().InMsgs >= before+3 })
	closed := make(chan error)
	go func() { closed <- client.Close() }()
	awaitClosing(t, client)
	close(release)
	require.NoError(t, <-closed)
	answers.Wait()
	require.ErrorIs(t, client.Conn().Publish("x", nil), natsgo.ErrConnectionClosed)
}
