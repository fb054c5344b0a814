package conn_test

import (
	"context"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A denial that comes before SubscribeInbox returns is heard: what is asked there would wait in vain.
func TestDeniedInboxIsAlwaysTold(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *natsserver.Options) {
		o.Users = []*natsserver.User{{Username: "u", Password: "p", Permissions: &natsserver.Permissions{
			Subscribe: &natsserver.SubjectPermission{Deny: []string{"_INBOX.>"}},
		}}}
	}))
	c := conntest.Open(t, strings.Replace(s.URL(), "://", "://u:p@", 1), nil)
	for range 1000 {
		denied := make(chan error, 1)
		sub, unwatch, err := c.SubscribeInbox(context.Background(), "", func(*natsgo.Msg) {}, nil, func(err error) { denied <- err })
		require.NoError(t, err)
		select {
		case err = <-denied:
			require.ErrorIs(t, err, natsgo.ErrPermissionViolation)
		case <-time.After(time.Minute):
			require.FailNow(t, "the denial is lost")
		}
		unwatch()
		c.Unsubscribe(sub)
	}
}
