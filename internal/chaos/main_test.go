package chaos_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// In the environment these make the test binary a server or a worker, which end with their standard input, or a disk busy.
const (
	serverEnv = "NATS_CHAOS_SERVER"
	workerEnv = "NATS_CHAOS_WORKER"
	diskEnv   = "NATS_CHAOS_DISK"
)

func TestMain(m *testing.M) {
	for env, role := range map[string]func(string) error{serverEnv: serve, workerEnv: work, diskEnv: churn} {
		if spec := os.Getenv(env); spec != "" {
			if err := role(spec); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	goleak.VerifyTestMain(m)
}

// process returns the command of another process of the test binary.
func process(env, spec string) (*exec.Cmd, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), env+"="+spec)
	cmd.Stderr = os.Stderr
	return cmd, nil
}
