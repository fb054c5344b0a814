// Events shows two services that know each other only by an event: the user service publishes
// "user created", the mail service sends a welcome mail. A mail that cannot be sent is reported by
// the client's logger and event handler, and the mail service goes on.
//
//	go run ./examples/events
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// subject keeps runs on a shared server apart.
var subject = "example-" + strings.ToLower(rand.Text()[:6]) + ".events.user.created"

// UserCreated is the event, the one thing that both services share.
type UserCreated struct {
	UserID    string    `json:"user_id"`
	Email     string    `json:"email"`
	Timestamp time.Time `json:"timestamp"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "events:", err)
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

	users := []UserCreated{
		{"123", "ada@example.com", time.Now()},
		{"124", "no-address", time.Now()},
		{"125", "grace@example.com", time.Now()},
	}

	// The mail service stands first: core NATS keeps no event for those who come later.
	sent, failed := make(chan string, len(users)), make(chan nats.Event, len(users))
	mailClient, err := connect(ctx, urls, "mail-service", nats.WithEventHandler(func(e nats.Event) {
		if e.Type == nats.EventHandlerError {
			failed <- e
		}
	}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mailClient.Close()) }()
	if _, err := mailClient.Subscribe(ctx, subject, func(msg *nats.Message) error {
		var user UserCreated
		if err := msg.DecodeJSON(&user); err != nil {
			return err
		}
		if err := sendWelcomeMail(user); err != nil {
			return fmt.Errorf("welcome user %s: %w", user.UserID, err)
		}
		sent <- user.Email
		return nil
	}); err != nil {
		return err
	}

	userClient, err := connect(ctx, urls, "user-service")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, userClient.Close()) }()
	for _, user := range users {
		if err := userClient.PublishJSON(ctx, subject, user); err != nil {
			return err
		}
	}

	for range users {
		select {
		case email := <-sent:
			fmt.Println("welcomed", email)
		case e := <-failed:
			fmt.Println("failed  ", e.Err)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the mail service: %w", ctx.Err())
		}
	}
	return nil
}

// connect gives every service a connection under its own name and with its own logger.
func connect(ctx context.Context, urls []string, service string, opts ...nats.Option) (*nats.Client, error) {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil)).With("service", service)
	return nats.NewClientContext(ctx, &nats.Config{
		URLs:      urls,
		ClusterID: "isa-cloud-cluster",
		ClientID:  service,
	}, append(opts, nats.WithLogger(log))...)
}

func sendWelcomeMail(user UserCreated) error {
	_, err := mail.ParseAddress(user.Email)
	return err
}
