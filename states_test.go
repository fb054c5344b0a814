package nats_test

import (
	"context"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/faults/states"
)

// A promise to end in time holds in every state of the connection, or it is none. All calls are tried
// in internal/faults, over every kind of line.
func TestEveryCallInEveryState(t *testing.T) {
	t.Parallel()
	calls := states.Some(
		"Client.IsConnected", "Client.Stats", "Client.Config", "Client.Health", "Client.Ping", "Client.Publish",
		"Client.Request", "Client.Subscribe", "Client.PublishToStream", "Client.GetStreamInfo", "KeyValue.Put", "ObjectStore.GetBytes",
	)
	var table states.Table
	var all sync.WaitGroup // at once: each waits most of its time
	for _, state := range states.States() {
		all.Go(func() { states.Check(t, states.Plain, state, calls, &table) })
	}
	all.Wait()
	t.Log("\n" + table.String())
}

// A call that can wait, or that a page shows, is among those that are tried.
func TestStatesKnowEveryCall(t *testing.T) {
	t.Parallel()
	known := func(name string) bool {
		return slices.ContainsFunc(states.Calls(), func(c states.Call) bool { return c.Name == name || strings.HasPrefix(c.Name, name+"(") }) ||
			slices.Contains([]string{"Client.Close", "Client.Shutdown", // with which each state ends
				// and what only returns something that is there
				"Client.HealthHandler", "Message.WithContext", "KeyValue.Upstream", "Consumption.Done", "Consumption.Err",
				"Subscription.Done", "Subscription.Subject", "Subscription.Queue"}, name)
	}
	ctx := reflect.TypeFor[context.Context]()
	for name, typ := range map[string]reflect.Type{
		"Client": reflect.TypeFor[*nats.Client](), "KeyValue": reflect.TypeFor[*nats.KeyValue](), "ObjectStore": reflect.TypeFor[*nats.ObjectStore](),
		"KeyValueCache": reflect.TypeFor[*nats.KeyValueCache](), "Lock": reflect.TypeFor[*nats.Lock](), "Message": reflect.TypeFor[*nats.Message](),
		"Subscription": reflect.TypeFor[*nats.Subscription](), "Consumption": reflect.TypeFor[*nats.Consumption](),
	} {
		for method := range typ.Methods() {
			if method.Type.NumIn() > 1 && method.Type.In(1) == ctx {
				assert.True(t, known(name+"."+method.Name), "%s.%s is not tried", name, method.Name)
			}
		}
	}
	types := map[string]string{
		"client": "Client", "kv": "KeyValue", "store": "ObjectStore", "cache": "KeyValueCache", "lock": "Lock",
		"sub": "Subscription", "consumption": "Consumption", "watcher": "KeyWatcher",
	}
	for _, page := range docPages(t, "") {
		for _, named := range regexp.MustCompile(`\b([a-z]+)\.([A-Z]\w+)\(`).FindAllStringSubmatch(docText(t, page), -1) {
			if typ := types[named[1]]; typ != "" {
				assert.True(t, known(typ+"."+named[2]), "%s: %s.%s is not tried", page, typ, named[2])
			}
		}
	}
}
