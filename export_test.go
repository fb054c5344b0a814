package nats

import (
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// What black-box tests may see of the inside.
var SubjectFault = subjects.Fault

// Floor returns up to where the consumption knows its own consumer to be done.
func (s *Consumption) Floor() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main.floor
}
