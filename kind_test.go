package nats_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What calls return is sorted by what has happened, not only by its sentinel.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, patience)
	newStream(t, client, 0)
	kv, err := client.CreateKeyValue(ctx, "settings")
	require.NoError(t, err)
	_, err = kv.Create(ctx, "key", nil)
	require.NoError(t, err)
	_, err = client.Subscribe(ctx, "silent", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	away := connect(t, natstest.RunServer(t), func(c *nats.Config) { c.PublishWhenDisconnected = "fail" })
	cancelled, cancel := context.WithCancel(ctx)
	cancel()

	for name, c := range map[string]struct {
		err              error
		kind             nats.Kind
		again, uncertain bool
	}{
		"nobody listens": {second(client.Request(ctx, "nobody", nil, 0)), nats.KindUnavailable, true, false},
		"no answer":      {second(client.Request(ctx, "silent", nil, 10*time.Millisecond)), nats.KindDeadlineExceeded, true, true},
		"cancelled":      {second(client.Request(cancelled, "silent", nil, 0)), nats.KindCanceled, false, true},
		"no key":         {second(kv.Get(ctx, "none")), nats.KindNotFound, false, false},
		"a key":          {second(kv.Create(ctx, "key", nil)), nats.KindAlreadyExists, false, false},
		"a revision":     {second(kv.Update(ctx, "key", nil, 7)), nats.KindAborted, false, false},
		"no stream":      {second(client.PublishToStream(ctx, "nowhere", nil)), nats.KindNotFound, false, false},
		"a subject":      {client.Publish(ctx, "a b", nil), nats.KindInvalidArgument, false, false},
		"drift": {second(client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"other"}})),
			nats.KindAlreadyExists, false, false},
		"a service that is busy": {fmt.Errorf("wrapped: %w", &nats.ServiceError{Code: 503}), nats.KindUnavailable, true, false},
		"a service's refusal":    {&nats.ServiceError{Code: 404}, nats.KindNotFound, false, false},
		"a service's own code":   {&nats.ServiceError{Code: 7}, nats.KindUnknown, false, false},
		"a service's text":       {&nats.ServiceError{Description: "E17"}, nats.KindUnknown, false, false},
		"no service":             {(*nats.ServiceError)(nil), nats.KindUnknown, false, false},
		"given up":               {fmt.Errorf("x: %w", nats.Permanent(nats.ErrTimeout)), nats.KindDeadlineExceeded, false, true},
		"to be tried":            {nats.RetryAfter(errors.New("no stock"), time.Second), nats.KindUnknown, true, false},
		"left behind":            {&nats.ShutdownError{Handlers: 1, Bytes: 7}, nats.KindDataLoss, false, true},
		"a batch that failed": {&nats.BatchError{Messages: 1, Failed: []nats.BatchFailure{{Err: nats.ErrNotConnected}}},
			nats.KindUnavailable, true, false},
		"a batch that failed in part": {&nats.BatchError{Messages: 2, Failed: []nats.BatchFailure{{Err: nats.ErrNotConnected}}},
			nats.KindUnavailable, true, true},
	} {
		require.Error(t, c.err, name)
		assert.Equal(t, c.kind, nats.KindOf(c.err), "%s: %v", name, c.err)
		assert.Equal(t, c.again, nats.IsRetryable(c.err), "%s is retryable: %v", name, c.err)
		assert.Equal(t, c.uncertain, nats.IsUncertain(c.err), "%s is uncertain: %v", name, c.err)
	}
	require.NoError(t, away.Close())
	assert.Equal(t, nats.KindFailedPrecondition, nats.KindOf(away.Publish(ctx, "a", nil)))
	assert.False(t, nats.IsUncertain(away.Publish(ctx, "a", nil)))

	asked, failed := make(chan struct{}), make(chan error, 1)
	_, err = connect(t, s, nil).Subscribe(ctx, "asked", func(*nats.Message) error { close(asked); return nil })
	require.NoError(t, err)
	go func() { failed <- second(client.Request(context.Background(), "asked", nil, patience)) }()
	<-asked
	soon, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer stop()
	_ = client.Shutdown(soon) // its time is up before that of the request
	err = <-failed
	require.ErrorIs(t, err, nats.ErrClosed)
	assert.True(t, nats.IsUncertain(err), "it was in flight: %v", err)
}

// A type of errors that is new belongs into this list, and sorts as what it says.
func TestKindsOfTypes(t *testing.T) {
	t.Parallel()
	kinds := map[string]nats.Kind{}
	for _, c := range []struct {
		err  error
		kind nats.Kind
	}{
		{&nats.BatchError{Messages: 1, Failed: []nats.BatchFailure{{Err: nats.ErrStreamFull}}}, nats.KindResourceExhausted},
		{&nats.ConflictError{}, nats.KindAborted},
		{&nats.DriftError{}, nats.KindAlreadyExists},
		{&nats.ServiceError{Code: 503}, nats.KindUnavailable},
		{&nats.ShutdownError{Messages: 1}, nats.KindDeadlineExceeded},
	} {
		assert.Equal(t, c.kind, nats.KindOf(c.err), "%T", c.err)
		kinds[strings.TrimPrefix(fmt.Sprintf("%T", c.err), "*nats.")] = c.kind
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	exported := regexp.MustCompile(`(?m)^func \(\w+ \*?([A-Z]\w*)\) Error\(\) string`)
	for _, file := range files {
		for _, found := range exported.FindAllStringSubmatch(docText(t, file), -1) {
			assert.Contains(t, kinds, found[1], file)
		}
	}
}

func ExampleKindOf() {
	status := func(err error) int { // of an HTTP handler
		switch nats.KindOf(err) {
		case "":
			return http.StatusOK
		case nats.KindNotFound:
			return http.StatusNotFound
		case nats.KindInvalidArgument:
			return http.StatusBadRequest
		case nats.KindAborted, nats.KindAlreadyExists:
			return http.StatusConflict
		case nats.KindUnavailable, nats.KindDeadlineExceeded, nats.KindResourceExhausted:
			return http.StatusServiceUnavailable
		default:
			return http.StatusInternalServerError
		}
	}
	fmt.Println(status(nil), status(nats.ErrKeyNotFound), status(jetstream.ErrKeyExists), status(context.DeadlineExceeded))
	fmt.Println(nats.KindOf(errors.Join(nats.ErrNoResponders, nats.ErrObjectCorrupt)))
	// Output:
	// 200 404 409 503
	// data_loss
}

func ExampleIsRetryable() {
	for _, err := range []error{nats.ErrNoResponders, nats.ErrTimeout, nats.ErrConflict} {
		fmt.Printf("%v: again %v, perhaps twice %v\n", err, nats.IsRetryable(err), nats.IsUncertain(err))
	}
	// Output:
	// no responders: again true, perhaps twice false
	// timed out: again true, perhaps twice true
	// conflicting revision: again false, perhaps twice false
}
