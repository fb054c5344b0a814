package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// objectUploaderEnv, set in the environment, makes the test binary a process that uploads until it is killed.
const objectUploaderEnv = "NATS_FAULTS_UPLOADER"

// objectSource yields size bytes that follow from seed, and waits before every piece.
type objectSource struct {
	seed  uint64
	left  int
	piece int
	pause time.Duration
	noise *rand.ChaCha8
}

func newObjectSource(seed uint64, size, piece int, pause time.Duration) *objectSource {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return &objectSource{seed: seed, left: size, piece: piece, pause: pause, noise: rand.NewChaCha8(key)}
}

func (s *objectSource) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.pause) // the source is slow
	n := min(len(p), s.left, s.piece)
	_, _ = s.noise.Read(p[:n])
	s.left -= n
	return n, nil
}

// objectContent is all that such a source yields.
func objectContent(seed uint64, size, piece int) []byte {
	data, _ := io.ReadAll(newObjectSource(seed, size, piece, 0))
	return data
}

// objectUpload is the process of an uploader. It prints how far it is.
func objectUpload(url string) error {
	client, err := nats.NewClient(&nats.Config{URLs: []string{url}, JetStreamEnabled: true})
	if err != nil {
		return err
	}
	store, err := client.GetObjectStore(context.Background(), "files")
	if err != nil {
		return err
	}
	meta := jetstream.ObjectMeta{Name: "killed", Opts: &jetstream.ObjectMetaOptions{ChunkSize: 10_000}}
	_, err = store.Put(context.Background(), meta, newObjectSource(1, 1<<30, 10_000, time.Millisecond),
		nats.WithProgress(func(done, _ int64) { fmt.Println(done) }))
	return err
}

// objectKilledUpload runs an uploader and kills it when so many bytes are stored.
func objectKilledUpload(tb testing.TB, url string, offset int64) {
	tb.Helper()
	cmd := process(tb, objectUploaderEnv, url)
	out, err := cmd.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, cmd.Start())
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var done int64
		_, err := fmt.Sscan(lines.Text(), &done)
		require.NoError(tb, err, lines.Text())
		if done >= offset {
			return
		}
	}
	require.Fail(tb, "the uploader ended by itself")
}
