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

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// certificateWarning is how long before a certificate's end the client begins to warn.
const certificateWarning = 7 * 24 * time.Hour

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
		if left := time.Until(pair.Leaf.NotAfter); left < certificateWarning {
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
			c.leave(&departure{reason: "the TLS files changed", servers: c.serverPool})
		}
	}
}
