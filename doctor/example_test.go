package doctor_test

import (
	"context"
	"fmt"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/doctor"
)

// A service looks before it starts, and says what is wrong.
func ExampleRun() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cfg := &nats.Config{URLs: []string{"nats://127.0.0.1:1"}, JetStreamEnabled: true} // nothing listens there
	wants := doctor.Wants{Publish: []string{"orders.created"}, Streams: []string{"ORDERS"}}
	for f := range doctor.Run(ctx, cfg, wants) {
		fmt.Printf("%-12s %s\n", f.Status, f.Check)
		if f.Status == doctor.Failed {
			fmt.Println("  ", f.Remedy)
		}
	}
	// Output:
	// passed       configuration
	// not checked  consul
	// passed       dns
	// failed       tcp
	//    see that a server runs there and that this is its port for clients
	// not checked  greeting
	// not checked  tls
	// not checked  authentication
	// not checked  publish
	// not checked  jetstream
	// not checked  account limits
	// not checked  stream
	// not checked  clock
}
