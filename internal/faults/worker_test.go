package faults_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// workerEnv, set in the environment to a server's URL, makes the test binary a worker.
const workerEnv = "NATS_FAULTS_WORKER"

// workerLimit is how many workers may die on a message.
const workerLimit = 3

// work is the process of a worker. A message "poison" kills it, as kill -9 does; any other says how
// long it takes, and its deliveries are published on "done.<process>".
func work(url string) error {
	client, err := nats.NewClient(&nats.Config{URLs: []string{url}, JetStreamEnabled: true})
	if err != nil {
		return err
	}
	_, err = client.Consume(context.Background(), "S", "c", func(msg *nats.Message) error {
		if string(msg.Data) == "poison" {
			return die()
		}
		took, err := time.ParseDuration(string(msg.Data))
		if err != nil {
			return err
		}
		time.Sleep(took)
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		return client.Publish(msg.Context(), fmt.Sprintf("done.%d", os.Getpid()), fmt.Append(nil, meta.NumDelivered))
	}, nats.WithMaxDeliver(workerLimit), nats.WithWorkers(2), nats.WithRetryStream())
	if err != nil {
		return err
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // it ends with the test
	return client.Close()
}

// die ends the process at once.
func die() error {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := self.Kill(); err != nil {
		return err
	}
	select {}
}

// startWorker starts a worker's process. Died tells of its end, which stop brings about.
func startWorker(t *testing.T, url string) (died chan error, stop func() error) {
	t.Helper()
	worker := process(t, workerEnv, url)
	stdin, err := worker.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, worker.Start())
	died = make(chan error, 1)
	go func() { died <- worker.Wait() }()
	return died, func() error {
		_ = stdin.Close()
		return <-died
	}
}

// Two processes of two workers share the work evenly, and nothing comes twice although it waits for
// longer than the ack wait. Raw nats.go: 41 of the messages do, since the first to come fetches all.
func TestWorkerProcessesShareEvenly(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s.URL())
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c", AckWait: 5 * time.Second})
	require.NoError(t, err)
	var mu sync.Mutex
	done, again := map[string]int{}, 0
	_, err = client.Subscribe(ctx, "done.*", func(msg *nats.Message) error {
		mu.Lock()
		defer mu.Unlock()
		done[msg.Subject]++
		if string(msg.Data) != "1" {
			again++
		}
		return nil
	})
	require.NoError(t, err)
	for range 2 {
		_, stop := startWorker(t, s.URL())
		t.Cleanup(func() { assert.NoError(t, stop()) })
	}
	publishEventually(t, "both ask for messages", func() bool {
		info, err := client.GetConsumerInfo(ctx, "S", "c")
		return err == nil && info.NumWaiting == 2
	})
	const messages = 100
	for range messages {
		_, err := client.PublishToStream(ctx, "s", []byte("125ms"))
		require.NoError(t, err)
	}
	publishEventually(t, "all done", func() bool {
		mu.Lock()
		defer mu.Unlock()
		sum := 0
		for _, n := range done {
			sum += n
		}
		return sum >= messages
	})
	mu.Lock()
	defer mu.Unlock()
	t.Log(done)
	assert.Zero(t, again)
	for _, n := range done {
		assert.GreaterOrEqual(t, n, 40*messages/100)
	}
	assert.Len(t, done, 2)
}

// A message that kills every worker is in the dead letters, once, and stops killing. The server's own
// limit drops such a message where nobody sees it.
func TestDeadLetterOfAMessageThatKills(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s.URL())
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Retention: jetstream.WorkQueuePolicy})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c", AckWait: time.Second})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "s", []byte("poison"))
	require.NoError(t, err)

	stored := func() uint64 {
		info, err := client.GetStreamInfo(ctx, "S_DLQ")
		if err != nil {
			return 0
		}
		return info.State.Msgs
	}
	deaths, stop := 0, func() error { return nil }
	for stored() == 0 {
		var died chan error
		died, stop = startWorker(t, s.URL())
		publishEventually(t, "a death or a dead letter", func() bool {
			return len(died) > 0 || stored() > 0
		})
		if len(died) > 0 {
			deaths++
			require.LessOrEqual(t, deaths, workerLimit, "it goes on killing")
		}
	}
	assert.Equal(t, workerLimit, deaths)
	for range 10 { // the worker that buried it lives on
		_, err := client.PublishToStream(ctx, "s", []byte("0s"))
		require.NoError(t, err)
	}
	publishEventually(t, "everything is done", func() bool {
		info, err := client.GetStreamInfo(ctx, "S")
		return err == nil && info.State.Msgs == 0
	})
	require.NoError(t, stop())
	assert.EqualValues(t, 1, stored())
	raw, err := client.GetStream(ctx, "S_DLQ")
	require.NoError(t, err)
	stone, err := raw.GetMsg(ctx, 1)
	require.NoError(t, err)
	letter, err := nats.ReadDeadLetter(&nats.Message{Subject: stone.Subject, Header: stone.Header, Data: stone.Data})
	require.NoError(t, err)
	assert.Equal(t, "poison", string(letter.Data))
	assert.Equal(t, workerLimit+1, letter.Deliveries)
	assert.Contains(t, letter.Reason, "no worker lived")
	t.Attr("figure", fmt.Sprintf("%d workers died; the dead letter says: %s", deaths, letter.Reason))
}
