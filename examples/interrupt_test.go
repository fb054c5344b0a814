package examples_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

var stalls, _ = conntest.WatchStalls()

// patience is how long an example may take to end after Ctrl-C, where the machine lets it.
const patience = 2 * time.Second

// runInterrupted: every example ends soon after Ctrl-C, when it has just started, twice at work and at its end, and
// leaves nothing on the server.
func runInterrupted(t *testing.T, bin string, names []string) {
	for _, name := range names {
		parts := expected[name]
		moments := []string{"Using the NATS server at", parts[0], parts[len(parts)/2], parts[len(parts)-1]}
		for _, part := range slices.Compact(moments) {
			t.Run(name+"/"+part, func(t *testing.T) {
				t.Parallel()
				url := natstest.RunServer(t).URL()
				client := connect(t, url)
				took := interrupt(t, command(t.Context(), filepath.Join(bin, name), "ISA_CLOUD_NATS_URLS="+url), part)
				t.Logf("took %v", took)
				if took > patience {
					t.Errorf("it ended only after %v", took)
				}
				if left := streams(t, client); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

// interrupt runs a program, sends it Ctrl-C when it prints the text, and returns how long it went on.
func interrupt(t *testing.T, cmd *exec.Cmd, text string) time.Duration {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var output strings.Builder
	var at time.Time
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		output.WriteString(lines.Text() + "\n")
		if at.IsZero() && strings.Contains(lines.Text(), text) {
			at = time.Now()
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Log(err) // it has ended
			}
			hung := time.AfterFunc(10*patience, func() { _ = cmd.Process.Kill() })
			defer hung.Stop()
		}
	}
	_ = cmd.Wait() // how it ends is its own affair
	switch {
	case at.IsZero():
		t.Fatalf("it never printed %q:\n%s%s", text, &output, &stderr)
	case strings.Contains(stderr.String(), "goroutine "):
		t.Error("it panicked")
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("%s%s", &output, &stderr)
	}
	return stalls.Since(at)
}
