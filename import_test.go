package nats_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// imported returns clients of an account with JetStream, and of one that imports its API.
func imported(t *testing.T, responseType string, opts ...nats.Option) (owner, client *nats.Client) {
	t.Helper()
	if responseType != "" {
		responseType = ", response_type: " + responseType
	}
	file := filepath.Join(t.TempDir(), "server.conf")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
		accounts {
			OWNER {
				jetstream: enabled, users: [{user: owner, password: p}]
				exports: [{service: "$JS.API.>"%s}, {service: "$JS.ACK.>"}]
			}
			USER {
				users: [{user: user, password: p}]
				imports: [
					{service: {account: OWNER, subject: "$JS.API.>"}, to: "owner.API.>"}
					{service: {account: OWNER, subject: "$JS.ACK.>"}}
				]
			}
		}`, responseType), 0o600))
	parsed, err := server.ProcessConfigFile(file)
	require.NoError(t, err)
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Accounts, o.Users = parsed.Accounts, parsed.Users
	}))
	owner = connect(t, s, as("owner"))
	return owner, connect(t, s, func(c *nats.Config) {
		as("user")(c)
		c.JetStreamAPIPrefix = "owner.API"
	}, opts...)
}

// Where the API is imported as it should be, all reads as at home.
func TestImportedStream(t *testing.T) {
	t.Parallel()
	owner, client := imported(t, `"Stream"`)
	fillSubjects(t, owner, 300)
	got, err := read(t, client)
	require.NoError(t, err)
	assert.Equal(t, upTo(1, 300, 1), got)
}

// Without a response type, each question gets one answer: who reads is told what is missing.
func TestImportedStreamWithOneAnswer(t *testing.T) {
	t.Parallel()
	var events eventLog
	owner, client := imported(t, "", nats.WithEventHandler(events.handle))
	fillSubjects(t, owner, 300)
	kv, err := owner.CreateKeyValue(context.Background(), "conf")
	require.NoError(t, err)
	for i := range 10 {
		put(t, kv, fmt.Sprint("k", i), "v")
	}
	kv, err = client.GetKeyValue(context.Background(), "conf")
	require.NoError(t, err)
	w, err := kv.WatchAll(within(t, time.Minute))
	require.NoError(t, err)
	go func() {
		for range w.Updates() {
		}
	}()
	_, err = kv.Cached(within(t, time.Minute))
	require.ErrorIs(t, err, nats.ErrOneAnswer)
	_, err = read(t, client)
	require.ErrorIs(t, err, nats.ErrOneAnswer)
	require.ErrorContains(t, err, "response_type")
	eventually(t, "an event names the setting", func() bool {
		for _, e := range events.of(nats.EventWatchStale) {
			if e.Err != nil {
				return assert.ErrorIs(t, e.Err, nats.ErrOneAnswer)
			}
		}
		return false
	})
}

// A reading that the server does not permit says so at once, whichever of its questions is denied.
func TestDeniedReading(t *testing.T) {
	t.Parallel()
	for _, denied := range []string{"$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.MSG.NEXT.>"} {
		t.Run(denied, func(t *testing.T) {
			t.Parallel()
			s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{denied}}})
			admin, client := connect(t, s, as("admin")), connect(t, s, as("u"))
			fillSubjects(t, admin, 3)
			kv, err := admin.CreateKeyValue(context.Background(), "conf")
			require.NoError(t, err)
			put(t, kv, "k", "v")
			kv, err = client.GetKeyValue(context.Background(), "conf")
			require.NoError(t, err)
			begun := time.Now()
			_, err = read(t, client)
			require.ErrorIs(t, err, nats.ErrPermission)
			require.ErrorContains(t, err, denied[:len(denied)-1])
			for _, err := range kv.All(within(t, patience)) {
				require.ErrorIs(t, err, nats.ErrPermission)
			}
			_, err = kv.Cached(within(t, patience))
			require.ErrorIs(t, err, nats.ErrPermission)
			require.ErrorContains(t, err, denied[:len(denied)-1])
			assert.Less(t, since(begun), 5*time.Second)
		})
	}
}

// So does one on a server without JetStream.
func TestReadingWithoutJetStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t, natstest.WithoutJetStream()), nil)
	begun := time.Now()
	_, err := read(t, client)
	require.ErrorIs(t, err, nats.ErrJetStreamDisabled)
	for _, err := range client.GetLastMessages(within(t, patience), "ORDERS", "a") {
		require.ErrorIs(t, err, nats.ErrJetStreamDisabled)
	}
	_, err = client.GetMessage(within(t, patience), "ORDERS", 1)
	require.ErrorIs(t, err, nats.ErrJetStreamDisabled)
	_, err = client.PullMessages(within(t, patience), "ORDERS", "c", 1)
	require.ErrorIs(t, err, nats.ErrJetStreamDisabled)
	assert.Less(t, since(begun), 5*time.Second)
}

// Who may only read comes to the end as well, when what was announced is purged meanwhile.
func TestReadStreamEndsAfterAPurgeWithFewRights(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{
		"$JS.API.CONSUMER.CREATE.ORDERS.*", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.*", "$JS.API.CONSUMER.DELETE.ORDERS.*",
	}}})
	admin, client := connect(t, s, as("admin")), connect(t, s, as("u"))
	fillSubjects(t, admin, 1000)
	got := 0
	for _, err := range client.ReadStream(within(t, patience), "ORDERS") {
		require.NoError(t, err)
		if got++; got == 1 {
			require.NoError(t, admin.PurgeStream(context.Background(), "ORDERS"))
		}
	}
	assert.Less(t, got, 1000)
}
