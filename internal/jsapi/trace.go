package jsapi

import (
	"context"
	"encoding/json"
	"fmt"

	natsgo "github.com/nats-io/nats.go"
)

// isImported tells whether the account imports subject, so that the stream that stores it may be one of another
// account, whose API this one does not show. It traces a message that is delivered to nobody, which servers can
// do since 2.11; where that is not known, or not allowed, the account imports nothing.
func (a *API) isImported(ctx context.Context, subject string) bool {
	var major, minor int
	_, _ = fmt.Sscanf(a.conn.Info().Version, "%d.%d", &major, &minor)
	if major < 2 || major == 2 && minor < 11 {
		return false
	}
	ctx, deny := context.WithCancelCause(ctx)
	defer deny(nil)
	traces := make(chan *natsgo.Msg, 64) // one for each server that the message passes
	sub, unwatch, err := a.conn.SubscribeInbox(ctx, "", nil, traces, deny, subject)
	if err != nil {
		return false
	}
	defer a.conn.Unsubscribe(sub)
	defer unwatch()
	m := &natsgo.Msg{Subject: subject, Header: natsgo.Header{"Nats-Trace-Dest": {sub.Subject}, "Nats-Trace-Only": {"true"}}}
	if a.conn.PublishMsg(ctx, m) != nil {
		return false
	}
	var trace struct {
		Events []struct {
			Type string `json:"type"`
		} `json:"events"`
	}
	select {
	case m := <-traces: // the first server's, who knows the account's imports
		if json.Unmarshal(m.Data, &trace) != nil {
			return false
		}
	case <-ctx.Done():
		return context.Cause(ctx) == context.DeadlineExceeded //nolint:errorlint // perhaps; a denial is a cause of its own
	}
	for _, event := range trace.Events {
		if event.Type == "si" { // service import
			return true
		}
	}
	return false
}
