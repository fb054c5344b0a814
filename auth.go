package nats

import (
	"errors"
	"net/url"
	"os"
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// setAuth sets the one way to authenticate that the Config names. Secrets in files are read at
// every connect, so that a new one is used without a restart.
func setAuth(o *natsgo.Options, cfg *Config) error {
	switch {
	case cfg.Creds != "":
		return natsgo.UserCredentialBytes([]byte(cfg.Creds))(o)
	case cfg.CredsFile != "":
		return natsgo.UserCredentials(cfg.CredsFile)(o)
	case cfg.NKeySeed != "" || cfg.NKeySeedFile != "":
		return setNKey(o, cfg)
	case cfg.TokenFile != "":
		o.TokenHandler = func() string { return readSecret(cfg.TokenFile) }
	case cfg.Token != "":
		o.Token = cfg.Token
	case cfg.PasswordFile != "":
		o.UserInfo = func() (string, string) { return cfg.Username, readSecret(cfg.PasswordFile) }
	case cfg.Username != "":
		o.User, o.Password = cfg.Username, cfg.Password
	default:
		setURLCredentials(o, cfg.URLs)
	}
	return nil
}

// setURLCredentials makes the credentials in the configured URLs hold for servers that discovery
// names, whose URLs have none. nats.go prefers a URL's own.
func setURLCredentials(o *natsgo.Options, urls []string) {
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.User == nil {
			continue
		}
		if password, ok := u.User.Password(); ok {
			o.User, o.Password = u.User.Username(), password
		} else {
			o.Token = u.User.Username()
		}
		return
	}
}

// setNKey signs the server's nonce with the seed as it is at that moment.
func setNKey(o *natsgo.Options, cfg *Config) error {
	public, err := nkeyPublic(cfg)
	if err != nil {
		return fail("connect", "", ErrInvalidConfig, "%w", err)
	}
	return natsgo.Nkey(public, func(nonce []byte) ([]byte, error) {
		pair, err := nkeyPair(cfg)
		if err != nil {
			return nil, err
		}
		defer pair.Wipe()
		return pair.Sign(nonce)
	})(o)
}

// parseCreds finds the JWT and the seed in the content of a credentials file.
func parseCreds(text string) (jwt, seed string, err error) {
	for word := range strings.FieldsSeq(text) {
		switch {
		case jwt == "" && strings.HasPrefix(word, "eyJ") && strings.Count(word, ".") == 2:
			jwt = word
		case seed == "" && isUserSeed(word):
			seed = word
		}
	}
	switch {
	case jwt == "":
		return "", "", errors.New("must be the content of a .creds file: found no JWT")
	case seed == "":
		return "", "", errors.New("must be the content of a .creds file: found no seed of a user's NKey")
	}
	return jwt, seed, nil
}

// errSeed does not say more, since the seed may be only half wrong.
var errSeed = errors.New("nkey_seed: not a seed of a user's NKey")

func nkeyPair(cfg *Config) (nkeys.KeyPair, error) {
	text := cfg.NKeySeed
	if cfg.NKeySeedFile != "" {
		text = readSecret(cfg.NKeySeedFile)
	}
	pair, err := nkeys.FromSeed([]byte(text))
	if err != nil {
		return nil, errSeed
	}
	return pair, nil
}

func nkeyPublic(cfg *Config) (string, error) {
	pair, err := nkeyPair(cfg)
	if err != nil {
		return "", err
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return "", errSeed
	}
	return public, nil
}

// readSecret returns a file's content without the surrounding white space that editors leave. A
// file that cannot be read is an empty secret: the server's refusal is then reported as such, and
// the next attempt reads again.
func readSecret(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

// refreshNKey follows a seed file to a new key. Upstream takes the public key once, as an option;
// it calls the dialer with the connection's lock held, right before it uses the option.
func (c *Client) refreshNKey() {
	nc := c.established.Load()
	if nc == nil || c.cfg.NKeySeedFile == "" {
		return
	}
	if public, err := nkeyPublic(c.cfg); err == nil {
		nc.Opts.Nkey = public
	}
}
