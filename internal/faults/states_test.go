package faults_test

import (
	"testing"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/faults/states"
)

// All calls in all states, over every kind of line.
func TestEveryCallInEveryState(t *testing.T) {
	t.Parallel()
	for _, line := range []states.Line{states.Plain, states.TLS, states.MutualTLS, states.TLSFirst, states.Websocket, states.SecureWebsocket} {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			var table states.Table
			t.Cleanup(func() { t.Log("\n" + table.String()) })
			for _, state := range states.States() {
				t.Run(state.Name, func(t *testing.T) {
					t.Parallel()
					states.Check(t, line, state, states.Calls(), &table)
				})
			}
		})
	}
}
