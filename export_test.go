package nats

// What black-box tests may see of the inside.

// Floor returns up to where the consumption knows its own consumer to be done.
func (s *Consumption) Floor() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main.floor
}
