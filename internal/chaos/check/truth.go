package check

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The streams that workers use, and the consumer of the first.
const (
	Orders   = "ORDERS"
	Letters  = "ORDERS_DLQ"
	Keys     = "KV_keys"
	Locks    = "KV_locks"
	Objects  = "OBJ_files"
	Consumer = "workers"
)

// Truth is what the servers hold.
type Truth struct {
	Streams map[string][]Stored
	Waiting uint64 // messages that the consumer has not delivered
	Held    int    // and those that are delivered and not finished
}

// Stored is a message of a stream.
type Stored struct {
	Seq     uint64
	Subject string
	Header  map[string][]string `json:",omitempty"`
	Data    []byte
}

// ReadTruth reads all streams.
func ReadTruth(ctx context.Context, js jetstream.JetStream) (*Truth, error) {
	t := &Truth{Streams: map[string][]Stored{}}
	for _, name := range []string{Orders, Letters, Keys, Locks, Objects} {
		var err error
		if t.Streams[name], err = readStream(ctx, js, name); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	consumer, err := js.Consumer(ctx, Orders, Consumer)
	if err != nil {
		return nil, err
	}
	info := consumer.CachedInfo()
	t.Waiting, t.Held = info.NumPending, info.NumAckPending
	return t, nil
}

func readStream(ctx context.Context, js jetstream.JetStream, name string) ([]Stored, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	var all []Stored
	left := stream.CachedInfo().State.Msgs
	consumer, err := js.OrderedConsumer(ctx, name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	for uint64(len(all)) < left {
		batch, err := consumer.Fetch(min(int(left)-len(all), 1000), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return nil, err
		}
		for msg := range batch.Messages() {
			meta, err := msg.Metadata()
			if err != nil {
				return nil, err
			}
			all = append(all, Stored{meta.Sequence.Stream, msg.Subject(), msg.Headers(), msg.Data()})
		}
		if err := batch.Error(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

const truthFile = "truth.json"

// Write keeps the truth beside the history.
func (t *Truth) Write(dir string) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, truthFile), text, 0o600)
}

// LoadTruth reads what Write wrote.
func LoadTruth(dir string) (*Truth, error) {
	text, err := os.ReadFile(filepath.Join(dir, truthFile))
	if err != nil {
		return nil, err
	}
	t := &Truth{}
	return t, json.Unmarshal(text, t)
}
