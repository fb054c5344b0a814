package nats_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package when a test leaves a goroutine behind: everything that a client
// starts ends with it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}
