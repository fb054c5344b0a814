// Package faults_test holds the tests that take long: restarts, cut connections and elections
// under load. Run them with `make faults`.
package faults_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
