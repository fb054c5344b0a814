// Configfile shows a client made from a configuration file and the environment, as services do it:
// the defaults, overridden by configs/sdk/nats.yaml, overridden by ISA_CLOUD_NATS_* variables.
//
//	go run ./examples/configfile                                  # from the repository's root
//	ISA_CLOUD_NATS_REQUEST_TIMEOUT=1s go run ./examples/configfile
//	ISA_CLOUD_NATS_CONFIG=/path/to/nats.yaml go run ./examples/configfile
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "configfile:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	urls, stopServer, err := local.Server()
	if err != nil {
		return err
	}
	defer stopServer()
	// A deployment sets its variables outside. The embedded server's port is known only now.
	if err := os.Setenv("ISA_CLOUD_NATS_URLS", strings.Join(urls, ",")); err != nil {
		return err
	}

	// One factory for the service. It reads and checks the configuration, and connects nowhere yet.
	factory, err := nats.NewEventClientFactory()
	if err != nil {
		return err
	}
	// However a Config is printed, no secret is: a password in it, or in a URL, shows as ***.
	shown, err := yaml.Marshal(factory.Config())
	if err != nil {
		return err
	}
	fmt.Printf("The configuration in force, secrets blanked:\n\n%s\n", shown)
	secret := nats.Config{URLs: []string{"nats://app:swordfish@nats.example.com:4222"}, Token: "swordfish"}
	fmt.Printf("A Config with secrets prints as\n  %v\n\n", secret)

	client, err := factory.NewNATSClient(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := client.Ping(ctx); err != nil {
		return err
	}
	fmt.Printf("Connected to %s as %q.\n\n", client.Conn().ConnectedUrlRedacted(), client.Conn().Opts.Name)

	// A mistake stops the service at its start, and all mistakes are named at once.
	for name, value := range map[string]string{"ISA_CLOUD_NATS_TIMEOUT": "10 sec", "ISA_CLOUD_NATS_USERNAM": "app"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	_, err = nats.NewEventClientFactory()
	if !errors.Is(err, nats.ErrInvalidConfig) {
		return fmt.Errorf("a wrong environment returned %v", err) //nolint:errorlint // nil is a fault, too
	}
	fmt.Printf("A wrong environment is refused:\n  %v\n", err)
	return nil
}
