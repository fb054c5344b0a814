package faults_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

var stalls, _ = conntest.WatchStalls()

// since returns how long ago begin is, but for what the machine held the tests up since.
func since(begin time.Time) time.Duration { return stalls.Since(begin) }

var within = conntest.Within

// process returns the command of another process of the test binary: of the one that TestMain knows by
// the variable.
func process(tb testing.TB, variable, value string) *exec.Cmd {
	tb.Helper()
	binary, err := os.Executable()
	require.NoError(tb, err)
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), variable+"="+value)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestMain fails the package when a test leaves a goroutine behind. The test binary is also the
// server that publish tests kill, see publishServer, the uploader that an object test kills, see
// objectUpload, the holder of locks that lock tests do, see lockerRun, and the worker that kills
// itself, see worker.
func TestMain(m *testing.M) {
	for variable, run := range map[string]func(string) error{
		workerEnv: work, publishServerEnv: publishServe, objectUploaderEnv: objectUpload, lockerEnv: lockerRun,
	} {
		value := os.Getenv(variable)
		if value == "" {
			continue
		}
		if err := run(value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}
