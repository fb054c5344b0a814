package nats

import (
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
)

// credentials are what a connection authenticates with, as they are at one moment.
type credentials struct {
	user, password, token string
	jwt                   string
	nkey                  string // the public key, where there is no JWT
	sign                  natsgo.SignatureHandler
}

// readCredentials reads the one way to authenticate that the Config names, and its file, so that a new secret
// is used at the next connect. A secret that cannot be used is named by its key and file.
func readCredentials(cfg *Config) (credentials, error) {
	v := validator{c: cfg}
	c := v.credentials()
	return c, v.Err()
}

func (v *validator) credentials() (c credentials) {
	cfg := v.c
	c.user, c.password = cfg.Username, v.secret("password", cfg.Password, cfg.PasswordFile)
	c.token = v.secret("token", cfg.Token, cfg.TokenFile)
	var seed string
	if text := v.secret("creds", cfg.Creds, cfg.CredsFile); text != "" {
		if c.jwt, seed, _ = settings.FindKeys(text); c.jwt == "" || seed == "" {
			v.lacks("creds", cfg.CredsFile, "a user's JWT and the seed of its NKey, as .creds files do")
		}
	}
	if text := v.secret("nkey_seed", cfg.NKeySeed, cfg.NKeySeedFile); text != "" {
		if _, seed, c.nkey = settings.FindKeys(text); seed == "" {
			v.lacks("nkey_seed", cfg.NKeySeedFile, `the seed of a user's NKey, which begins with "SU"`)
		}
	}
	if seed != "" {
		c.sign = func(nonce []byte) ([]byte, error) { return sign(seed, nonce) }
	} else if c.user == "" && c.token == "" {
		c.ofURLs(cfg.URLs)
	}
	return c
}

// secret returns the secret of a key, or that in the file which the key "x_file" names.
func (v *validator) secret(key, value, file string) string {
	if file == "" {
		return value
	}
	text, err := settings.ReadSecret(file)
	if err != nil {
		v.Add(key+"_file", "%w", err)
	}
	return text
}

// lacks refuses a secret without telling it: it may be only half wrong.
func (v *validator) lacks(key, file, what string) {
	if file == "" {
		v.Add(key, "must hold %s", what)
	} else {
		v.Add(key+"_file", "must hold %s, found none in %q", what, file)
	}
}

// ofURLs makes the credentials in the configured URLs hold for servers that discovery names, whose URLs
// have none. nats.go prefers a URL's own.
func (c *credentials) ofURLs(urls []string) {
	for _, raw := range urls {
		u, err := serverurl.Parse(raw, false)
		if err != nil || u.User == nil {
			continue
		}
		if password, ok := u.User.Password(); ok {
			c.user, c.password = u.User.Username(), password
		} else {
			c.token = u.User.Username()
		}
		return
	}
}

func sign(seed string, nonce []byte) ([]byte, error) {
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// set gives them to nats.go.
func (c credentials) set(o *natsgo.Options) {
	o.User, o.Password, o.Token = c.user, c.password, c.token
	o.Nkey, o.SignatureCB = c.nkey, c.sign
	if c.jwt != "" {
		o.UserJWT = func() (string, error) { return c.jwt, nil }
	}
}
