package nats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

type order struct {
	ID int `json:"id"`
}

// Whatever becomes of a request, its caller is told at once, and of what only concerns the service nothing.
func TestRequestsAlwaysEnd(t *testing.T) {
	t.Parallel()
	const timeout = 20 * time.Second
	const soon = timeout / 10
	events, log := &eventLog{}, &logBuffer{}
	s := natstest.RunServer(t)
	service := connect(t, s, nil, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
	client := connect(t, s, nil)
	ctx := context.Background()
	const secret = "password of the database"
	var missing *nats.ServiceError
	for name, c := range map[string]struct {
		handle nats.RequestHandler
		code   int
		text   string
		told   bool // there is nothing more to know
	}{
		"error":   {func(*nats.Message) ([]byte, error) { return nil, errors.New(secret) }, 500, "Internal Server Error", false},
		"panic":   {func(*nats.Message) ([]byte, error) { panic(secret) }, 500, "Internal Server Error", false},
		"goexit":  {func(*nats.Message) ([]byte, error) { runtime.Goexit(); return nil, nil }, 500, "Internal Server Error", false},
		"nil":     {func(*nats.Message) ([]byte, error) { return nil, missing }, 500, "Internal Server Error", false},
		"decode":  {nats.JSONRequest(func(context.Context, order) (order, error) { return order{}, nil }), 400, "the request does not decode", false},
		"encode":  {nats.JSONRequest(func(context.Context, any) (float64, error) { return math.NaN(), nil }), 500, "Internal Server Error", false},
		"large":   {func(*nats.Message) ([]byte, error) { return make([]byte, 2<<20), nil }, 413, "the answer is too large", false},
		"respond": {func(msg *nats.Message) ([]byte, error) { return nil, msg.Respond(make([]byte, 2<<20)) }, 413, "the answer is too large", false},
		"service": {func(*nats.Message) ([]byte, error) {
			return nil, &nats.ServiceError{Code: 404, Description: "no such\r\norder"}
		}, 404, "no such order", true},
		"wrapped": {func(*nats.Message) ([]byte, error) {
			return nil, fmt.Errorf("%s: %w", secret, &nats.ServiceError{Code: 409})
		}, 409, "Conflict", false},
		"own": {func(msg *nats.Message) ([]byte, error) { return []byte("dropped"), msg.RespondError(0, "") }, 500, "Internal Server Error", true},
		"data": {func(*nats.Message) ([]byte, error) {
			return nil, &nats.ServiceError{Code: 1001, Data: make([]byte, 2<<20), Header: natsgo.Header{"K": {"v"}}}
		}, 1001, "error 1001", true},
		"header": {func(*nats.Message) ([]byte, error) {
			return nil, &nats.ServiceError{Code: 429, Description: "later", Header: natsgo.Header{"a b": {"v"}}}
		}, 429, "later", true},
		"description": {func(*nats.Message) ([]byte, error) {
			return nil, &nats.ServiceError{Code: 429, Description: strings.Repeat("x", 2<<20)}
		}, 429, "Too Many Requests", true},
	} {
		sub, err := service.HandleRequests(ctx, "service."+name, "q", c.handle)
		require.NoError(t, err)
		begin := time.Now()
		answer, err := client.Request(ctx, "service."+name, []byte(`"x"`), timeout)
		assert.Less(t, since(begin), soon, name)
		var e *nats.ServiceError
		if !assert.ErrorAs(t, err, &e, name) {
			continue
		}
		assert.Equal(t, c.code, e.Code, name)
		assert.Equal(t, c.text, e.Description, name)
		assert.NotNil(t, answer, name)
		assert.ErrorIs(t, err, &nats.ServiceError{Code: c.code}, name)
		assert.NotErrorIs(t, err, &nats.ServiceError{Code: c.code, Description: "another"}, name)
		assert.NotContains(t, fmt.Sprintf("%+v %+v", e, answer.Header), secret, name)
		eventually(t, name+" is counted", func() bool { return sub.Stats().Handled == 1 })
		if name == "own" {
			assert.Zero(t, sub.Stats().Failed, name)
		} else {
			assert.EqualValues(t, 1, sub.Stats().Failed, name)
		}
		if !c.told {
			eventually(t, name+" is told", func() bool {
				for _, e := range events.of(nats.EventHandlerError) {
					if e.Subject == "service."+name && e.Err != nil {
						return true
					}
				}
				return false
			})
		}
		for _, e := range events.of(nats.EventHandlerError) {
			assert.False(t, c.told && e.Subject == "service."+name, name)
		}
	}
	assert.Contains(t, log.String(), secret)
	assert.Contains(t, log.String(), "stack=")
	_, err := client.Request(ctx, "service.data", nil, timeout)
	var e *nats.ServiceError
	require.ErrorAs(t, err, &e)
	assert.Empty(t, e.Data)
	assert.Equal(t, "v", e.Header.Get("K"), "only what is too large is left out")
}

func TestHandleRequests(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	service, client := connect(t, s, nil), connect(t, s, nil)
	ctx := context.Background()
	sub, err := service.HandleRequests(ctx, "service.*", "", func(msg *nats.Message) ([]byte, error) {
		switch msg.Subject {
		case "service.twice":
			return []byte("second"), msg.Respond([]byte("first"))
		case "service.late":
			_ = msg.Respond([]byte("first"))
			return nil, errors.New("after the answer")
		}
		return msg.Data, nil
	})
	require.NoError(t, err)
	answer, err := client.Request(ctx, "service.echo", []byte("hello"), patience)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(answer.Data))

	// A handler answers once.
	var answers atomic.Int64
	_, err = client.Subscribe(ctx, "answers", func(*nats.Message) error { answers.Add(1); return nil })
	require.NoError(t, err)
	for _, subject := range []string{"service.twice", "service.late"} {
		require.NoError(t, client.PublishWithReply(ctx, subject, "answers", nil))
	}
	require.NoError(t, client.Publish(ctx, "service.nobody", nil))
	eventually(t, "all handled", func() bool { return sub.Stats().Handled == 4 })
	require.NoError(t, service.Flush(ctx))
	require.NoError(t, client.Flush(ctx))
	eventually(t, "two answers", func() bool { return answers.Load() >= 2 })
	assert.EqualValues(t, 2, answers.Load())
	stats := sub.Stats()
	assert.EqualValues(t, 1, stats.Unanswered)
	assert.EqualValues(t, 1, stats.Failed)

	_, err = service.HandleRequests(ctx, "service", "", nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = service.HandleRequests(ctx, "service", "a b", func(*nats.Message) ([]byte, error) { return nil, nil })
	require.ErrorIs(t, err, nats.ErrInvalidSubject)
	_, err = service.Subscribe(ctx, "service", func(*nats.Message) error { return nil }, nats.WithMaxInFlight(1))
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// What is too much is answered with code 503, and so is what waits when the subscription ends.
func TestRequestsThatAreDropped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		option  nats.SubscribeOption
		workers int
		handled int64
	}{
		"in flight, one worker": {nats.WithMaxInFlight(3), 1, 3},
		"in flight, workers":    {nats.WithMaxInFlight(3), 8, 3},
		"messages":              {nats.WithPendingLimits(2, -1), 1, 3},
		"bytes":                 {nats.WithPendingLimits(-1, 100), 1, 3},
		"unsubscribed":          {nil, 1, 1},
		"drained":               {nil, 1, 1},
		"closed":                {nil, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			service, client := connect(t, s, nil), connect(t, s, nil)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			begun, release := make(chan struct{}, 10), make(chan struct{})
			sub, err := service.HandleRequests(ctx, "service", "q", func(*nats.Message) ([]byte, error) {
				begun <- struct{}{}
				<-release
				return nil, nil
			}, nats.WithConcurrency(c.workers), c.option)
			require.NoError(t, err)
			var wg sync.WaitGroup
			var handled, refused atomic.Int64
			ask := func() {
				_, err := client.Request(ctx, "service", []byte("x"), patience)
				switch {
				case err == nil:
					handled.Add(1)
				case errors.Is(err, context.Canceled):
				case assert.ErrorIs(t, err, &nats.ServiceError{Code: 503}):
					refused.Add(1)
				}
			}
			wg.Go(ask)
			eventually(t, "begun", func() bool { return len(begun) == 1 })
			for range 9 {
				wg.Go(ask)
			}
			ended := make(chan struct{})
			if c.option == nil {
				eventually(t, "all wait", func() bool { return sub.Stats().Pending == 9 })
				go func() {
					defer close(ended)
					switch name {
					case "unsubscribed":
						assert.NoError(t, sub.Unsubscribe())
					case "drained":
						assert.ErrorIs(t, sub.Drain(within(t, 50*time.Millisecond)), nats.ErrDrainTimeout)
					case "closed":
						assert.ErrorIs(t, service.Shutdown(within(t, 50*time.Millisecond)), nats.ErrDrainTimeout)
					}
				}()
			} else {
				close(ended)
			}
			eventually(t, "refused", func() bool { return refused.Load() == 10-c.handled })
			close(release)
			<-ended
			if name == "closed" { // nobody can answer for the one that hangs any more
				cancel()
				c.handled = 0
			}
			wg.Wait()
			assert.Equal(t, c.handled, handled.Load())
			if c.option != nil {
				assert.EqualValues(t, 10-c.handled, sub.Stats().Dropped)
			}
		})
	}
}

// Whoever has his answer may ask again: a request that is answered is not in flight any more.
func TestRequestsInFlightOneByOne(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.HandleRequests(ctx, "service", "", func(msg *nats.Message) ([]byte, error) {
		if len(msg.Data) > 0 {
			runtime.Goexit()
		}
		return nil, nil
	}, nats.WithMaxInFlight(1))
	require.NoError(t, err)
	for i := range 2000 {
		if i%10 == 0 {
			_, err = client.Request(ctx, "service", []byte("exit"), patience)
			require.ErrorIs(t, err, &nats.ServiceError{Code: 500})
		}
		_, err = client.Request(ctx, "service", nil, patience)
		require.NoError(t, err)
	}
}

// What others send as errors is read for what it says.
func TestServiceErrorsOfOthers(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, nc := connect(t, s, nil), raw(t, s)
	const code, text = micro.ErrorCodeHeader, micro.ErrorHeader
	for name, c := range map[string]struct {
		header natsgo.Header
		want   nats.ServiceError
	}{
		"both":            {natsgo.Header{code: {"404"}, text: {"no such order"}}, nats.ServiceError{Code: 404, Description: "no such order"}},
		"code alone":      {natsgo.Header{code: {"404"}}, nats.ServiceError{Code: 404}},
		"text alone":      {natsgo.Header{text: {"no such order"}}, nats.ServiceError{Description: "no such order"}},
		"code is text":    {natsgo.Header{code: {"NOT_FOUND"}}, nats.ServiceError{Description: "NOT_FOUND"}},
		"code and text":   {natsgo.Header{code: {"NOT_FOUND"}, text: {"no such order"}}, nats.ServiceError{Description: "NOT_FOUND: no such order"}},
		"several lines":   {natsgo.Header{code: {"500"}, text: {"first", "second"}}, nats.ServiceError{Code: 500, Description: "first second"}},
		"several codes":   {natsgo.Header{code: {"500", "501"}, text: {"first"}}, nats.ServiceError{Code: 500, Description: "first"}},
		"empty":           {natsgo.Header{code: {""}, text: {""}}, nats.ServiceError{}},
		"out of range":    {natsgo.Header{code: {"99999999999999999999"}}, nats.ServiceError{Description: "99999999999999999999"}},
		"space around it": {natsgo.Header{code: {"  404 "}, text: {"x"}}, nats.ServiceError{Code: 404, Description: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			subject := natsgo.NewInbox()
			_, err := nc.Subscribe(subject, func(m *natsgo.Msg) {
				assert.NoError(t, m.RespondMsg(&natsgo.Msg{Header: c.header, Data: []byte("detail")}))
			})
			require.NoError(t, err)
			require.NoError(t, nc.Flush())
			answer, err := client.Request(context.Background(), subject, nil, patience)
			var e *nats.ServiceError
			require.ErrorAs(t, err, &e)
			assert.Equal(t, c.want.Code, e.Code)
			assert.Equal(t, c.want.Description, e.Description)
			assert.Equal(t, "detail", string(e.Data))
			assert.Equal(t, "detail", string(answer.Data))
			assert.Equal(t, answer.Header, e.Header)
			assert.NotEmpty(t, err.Error())
		})
	}
}

func TestRequestJSON(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.HandleRequests(ctx, "double", "q", nats.JSONRequest(func(_ context.Context, o order) (order, error) {
		if o.ID == 0 {
			return order{}, &nats.ServiceError{Code: 404}
		}
		return order{ID: 2 * o.ID}, nil
	}))
	require.NoError(t, err)
	_, err = client.HandleRequests(ctx, "text", "q", func(*nats.Message) ([]byte, error) { return []byte("text"), nil })
	require.NoError(t, err)
	doubled, err := nats.RequestJSON[order](ctx, client, "double", order{ID: 21}, patience)
	require.NoError(t, err)
	assert.Equal(t, order{ID: 42}, doubled)
	_, err = nats.RequestJSON[order](ctx, client, "double", order{}, patience)
	require.ErrorIs(t, err, &nats.ServiceError{Code: 404})
	_, err = nats.RequestJSON[order](ctx, client, "double", math.NaN(), patience)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = nats.RequestJSON[order](ctx, client, "text", 1, patience)
	var syntax *json.SyntaxError
	require.ErrorAs(t, err, &syntax)
	require.ErrorContains(t, err, "text")
	_, err = nats.RequestJSON[order](ctx, nil, "text", 1, patience)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Over a restart of the server nobody waits for longer than his own time, and the error tells what may have been handled.
func TestRequestsOverARestart(t *testing.T) {
	t.Parallel()
	const timeout, every, slack = time.Second, 5 * time.Millisecond, time.Second // on a busy machine
	s := natstest.RunServer(t)
	service, client := connect(t, s, nil), connect(t, s, nil)
	ctx := context.Background()
	var handled sync.Map
	_, err := service.HandleRequests(ctx, "service", "q", func(msg *nats.Message) ([]byte, error) {
		_, again := handled.LoadOrStore(string(msg.Data), true)
		assert.False(t, again, "handled twice")
		return msg.Data, nil
	})
	require.NoError(t, err)
	var callers sync.WaitGroup
	var outcomes sync.Map
	stop := make(chan struct{})
	callers.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			callers.Go(func() {
				id, begin := fmt.Sprint(i), time.Now()
				answer, err := client.Request(ctx, "service", []byte(id), timeout)
				assert.Less(t, since(begin), timeout+slack)
				_, done := handled.Load(id)
				kind := "answered"
				switch {
				case err == nil:
					assert.Equal(t, id, string(answer.Data))
					assert.True(t, done)
				case errors.Is(err, nats.ErrNotConnected), errors.Is(err, nats.ErrNoResponders):
					assert.False(t, done, "%v: it was handled", err)
					kind = "not handled"
				case errors.Is(err, nats.ErrConnectionLost), errors.Is(err, nats.ErrTimeout):
					assert.True(t, nats.IsUncertain(err), err)
					kind = "in doubt"
				default:
					assert.NoError(t, err)
				}
				n, _ := outcomes.LoadOrStore(kind, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
			})
		}
	})
	count := func(kind string) int64 {
		n, ok := outcomes.Load(kind)
		if !ok {
			return 0
		}
		return n.(*atomic.Int64).Load()
	}
	for range 3 {
		before := count("answered")
		eventually(t, "it runs", func() bool { return count("answered") > before+20 })
		s.Restart()
	}
	before := count("answered")
	eventually(t, "it runs again", func() bool { return count("answered") > before+20 })
	close(stop)
	callers.Wait()
	t.Logf("%d answered, %d not handled, %d in doubt", count("answered"), count("not handled"), count("in doubt"))
}
