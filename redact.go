package nats

import (
	"fmt"
	"log/slog"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
)

// The types without methods are what the printing methods below print, so as not to call themselves.
type (
	plainConfig       Config
	plainConsulConfig ConsulConfig
)

func (c Config) shown() settings.Shown       { return settings.Show(plainConfig(c)) }
func (c ConsulConfig) shown() settings.Shown { return settings.Show(plainConsulConfig(c)) }

// String lists the keys that are set, secrets as "***".
func (c Config) String() string { return c.shown().String() }

// GoString is the Go literal, secrets as "***".
func (c Config) GoString() string { return c.shown().GoString() }

// Format prints String, or GoString for %#v, so that no verb prints a secret.
func (c Config) Format(s fmt.State, verb rune) { c.shown().Format(s, verb) }

// LogValue is a group of the keys that are set, secrets as "***".
func (c Config) LogValue() slog.Value { return c.shown().LogValue() }

// MarshalJSON is for showing: the keys are those of the YAML file, secrets are "***".
func (c Config) MarshalJSON() ([]byte, error) { return c.shown().MarshalJSON() }

// MarshalYAML is for showing: [LoadConfig] reads the result, but secrets are "***".
func (c Config) MarshalYAML() (any, error) { return c.shown().MarshalYAML() }

// MarshalText is String, for XML and whoever else asks for a text.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// GobEncode is String: a Config is shown to others, and does not travel with its secrets.
func (c Config) GobEncode() ([]byte, error) { return []byte(c.String()), nil }

// String lists the keys that are set, secrets as "***".
func (c ConsulConfig) String() string { return c.shown().String() }

// GoString is the Go literal, secrets as "***".
func (c ConsulConfig) GoString() string { return c.shown().GoString() }

// Format prints String, or GoString for %#v, so that no verb prints a secret.
func (c ConsulConfig) Format(s fmt.State, verb rune) { c.shown().Format(s, verb) }

// LogValue is a group of the keys that are set, secrets as "***".
func (c ConsulConfig) LogValue() slog.Value { return c.shown().LogValue() }

// MarshalJSON is for showing: the keys are those of the YAML file, secrets are "***".
func (c ConsulConfig) MarshalJSON() ([]byte, error) { return c.shown().MarshalJSON() }

// MarshalYAML is for showing: secrets are "***".
func (c ConsulConfig) MarshalYAML() (any, error) { return c.shown().MarshalYAML() }

// MarshalText is String, for XML and whoever else asks for a text.
func (c ConsulConfig) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// GobEncode is String: a ConsulConfig is shown to others, and does not travel with its secrets.
func (c ConsulConfig) GobEncode() ([]byte, error) { return []byte(c.String()), nil }

// redacted returns a copy that shares no memory with the receiver and holds no secret.
func (c Config) redacted() Config {
	c = c.clone()
	settings.Redact(&c)
	return c
}
