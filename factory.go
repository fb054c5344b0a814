package nats

import "context"

// EventClientFactory makes clients from the service's configuration file and environment.
type EventClientFactory struct {
	cfg  func() *Config // a function, so that no way of printing the factory can show secrets
	opts []Option
}

// NewEventClientFactory loads the configuration as LoadConfig("") does. The options are those of
// every client that the factory makes.
func NewEventClientFactory(opts ...Option) (*EventClientFactory, error) {
	cfg, err := LoadConfig("")
	if err != nil {
		return nil, err
	}
	return &EventClientFactory{cfg: func() *Config { return cfg }, opts: opts}, nil
}

// NewNATSClient connects as NewClientContext does, with discovery through Consul when the
// configuration asks for it.
func (f *EventClientFactory) NewNATSClient(ctx context.Context) (*Client, error) {
	return NewClientContext(ctx, f.config(), f.opts...)
}

// Config returns a copy of the configuration that was loaded, with every secret blanked.
func (f *EventClientFactory) Config() Config {
	cfg := f.config()
	if cfg == nil {
		return Config{}
	}
	return cfg.redacted()
}

// config is nil when NewEventClientFactory has not made the factory.
func (f *EventClientFactory) config() *Config {
	if f == nil || f.cfg == nil {
		return nil
	}
	return f.cfg()
}
