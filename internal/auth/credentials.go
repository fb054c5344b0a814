package auth

import (
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
)

// Keys are those of a configuration that say how to authenticate: in one way of them, or in none.
type Keys struct {
	Username, Password, PasswordFile string
	Token, TokenFile                 string
	NKeySeed, NKeySeedFile           string
	Creds, CredsFile                 string
	// URLs may have a user, which holds for servers that discovery names, too.
	URLs []string
}

// HasFiles tells whether the credentials may be others at the next connection.
func (k *Keys) HasFiles() bool { return k.PasswordFile+k.TokenFile+k.NKeySeedFile+k.CredsFile != "" }

// Credentials are what a connection authenticates with, as they are at one moment.
type Credentials struct {
	user, password, token string
	jwt                   string
	nkey                  string // the public key, where there is no JWT
	sign                  natsgo.SignatureHandler
}

// Read reads the one way to authenticate that the keys name, and its file. A secret that cannot be used is named in ps
// by its key and file.
func Read(k Keys, ps *settings.Problems) (c Credentials) {
	c.user, c.password = k.Username, ps.Secret("password", k.Password, k.PasswordFile)
	c.token = ps.Secret("token", k.Token, k.TokenFile)
	var seed string
	if text := ps.Secret("creds", k.Creds, k.CredsFile); text != "" {
		if c.jwt, seed, _ = findKeys(text); c.jwt == "" || seed == "" {
			ps.Lacks("creds", k.CredsFile, "a user's JWT and the seed of its NKey, as .creds files do")
		}
	}
	if text := ps.Secret("nkey_seed", k.NKeySeed, k.NKeySeedFile); text != "" {
		if _, seed, c.nkey = findKeys(text); seed == "" {
			ps.Lacks("nkey_seed", k.NKeySeedFile, `the seed of a user's NKey, which begins with "SU"`)
		}
	}
	if seed != "" {
		c.sign = func(nonce []byte) ([]byte, error) { return sign(seed, nonce) }
	} else if c.user == "" && c.token == "" {
		c.ofURLs(k.URLs)
	}
	return c
}

// ofURLs takes the first credentials in URLs. Nats.go prefers a URL's own.
func (c *Credentials) ofURLs(urls []string) {
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

// Set gives them to nats.go.
func (c Credentials) Set(o *natsgo.Options) {
	o.User, o.Password, o.Token = c.user, c.password, c.token
	o.Nkey, o.SignatureCB = c.nkey, c.sign
	if c.jwt != "" {
		o.UserJWT = func() (string, error) { return c.jwt, nil }
	}
}

// findKeys finds a user's JWT and NKey in what the tools of NATS write, whatever comments, decorations
// and public keys stand around them. What it does not find is empty.
func findKeys(text string) (jwt, seed, public string) {
	for word := range strings.FieldsSeq(text) {
		switch {
		case jwt == "" && strings.HasPrefix(word, "eyJ") && strings.Count(word, ".") == 2:
			jwt = word
		case seed == "" && strings.HasPrefix(word, "SU"):
			if pair, err := nkeys.FromSeed([]byte(word)); err == nil {
				if public, err = pair.PublicKey(); err == nil {
					seed = word
				}
				pair.Wipe()
			}
		}
	}
	return jwt, seed, public
}
