package nats

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/health"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
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

// setTLS makes nats.go ask for the files at every handshake, so that renewed certificates are used
// without a restart.
func setTLS(o *natsgo.Options, cfg *Config, base *tls.Config, files *tlsFiles) {
	// A server that discovery names without a scheme must not get in plain text what was meant for
	// tls:// URLs.
	enabled := slices.ContainsFunc(cfg.URLs, serverurl.DemandsTLS) || cfg.TLSEnabled || base != nil ||
		cfg.TLSCert != "" || cfg.TLSCA != "" || cfg.TLSServerName != "" || cfg.TLSHandshakeFirst
	if !enabled {
		return
	}
	if base == nil {
		base = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t := base.Clone()
	t.MinVersion = max(t.MinVersion, tls.VersionTLS12)
	if cfg.TLSServerName != "" {
		t.ServerName = cfg.TLSServerName
	}
	o.Secure = true
	o.TLSConfig = t
	o.TLSHandshakeFirst = cfg.TLSHandshakeFirst
	if cfg.TLSCert != "" {
		o.TLSCertCB = files.certificate
	}
	if cfg.TLSCA != "" {
		o.RootCAsCB = files.authorities
	}
}

// tlsFiles reads the certificate, key and authorities, and keeps the last good ones: a file that is
// being replaced may be read half.
type tlsFiles struct {
	cert, key, ca string
	warn          func(text string, attrs ...any)

	mu      sync.Mutex
	content []byte // of all files, as last used
	pair    *tls.Certificate
	pool    *x509.CertPool
}

// certificate implements natsgo.TLSCertHandler.
func (f *tlsFiles) certificate() (tls.Certificate, error) {
	if _, err := f.reload(); err != nil {
		return tls.Certificate{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.pair, nil
}

// authorities implements natsgo.RootCAsHandler.
func (f *tlsFiles) authorities() (*x509.CertPool, error) {
	if _, err := f.reload(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pool, nil
}

// own returns the client's certificate, as last used, or nil.
func (f *tlsFiles) own() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pair
}

// reload reads the files and tells whether they hold something new and good. It fails only while
// there has been nothing good yet.
func (f *tlsFiles) reload() (changed bool, err error) {
	content, pair, pool, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil && f.content == nil:
		return false, err
	case err != nil:
		f.warn("the TLS files are unusable; the old ones are kept", "error", err)
		return false, nil
	case bytes.Equal(content, f.content):
		return false, nil
	}
	if pair != nil && pair.Leaf != nil {
		if left := time.Until(pair.Leaf.NotAfter); left < health.EndsSoon {
			f.warn("the client's TLS certificate ends soon", "file", f.cert, "ends", pair.Leaf.NotAfter)
		}
	}
	changed = f.content != nil
	f.content, f.pair, f.pool = content, pair, pool
	return changed, nil
}

// read reads and checks all files.
func (f *tlsFiles) read() (content []byte, pair *tls.Certificate, pool *x509.CertPool, err error) {
	content = []byte{}
	file := func(path string) []byte {
		text, readErr := os.ReadFile(path)
		if readErr != nil && err == nil {
			err = readErr
		}
		content = append(content, text...)
		return text
	}
	if f.cert != "" {
		certPEM, keyPEM := file(f.cert), file(f.key)
		if err != nil {
			return nil, nil, nil, err
		}
		own, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s, %s: %w", f.cert, f.key, err)
		}
		pair = &own
	}
	if f.ca != "" {
		caPEM := file(f.ca)
		if err != nil {
			return nil, nil, nil, err
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(caPEM) {
			return nil, nil, nil, fmt.Errorf("%s holds no certificate", f.ca)
		}
	}
	return content, pair, pool, nil
}

// reloadTLS looks at the files now and then and moves to a connection that uses the new ones.
func (c *Client) reloadTLS() {
	for pause.Sleep(c.life.Context(), c.cfg.TLSReload) {
		if changed, err := c.tls.reload(); err == nil && changed {
			c.log.Info("the TLS files changed; reconnecting to use them")
			c.conn.Depart(conn.Departure{Reason: "the TLS files changed"})
		}
	}
}
