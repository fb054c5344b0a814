package auth

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// EndsSoon is how long before a certificate's end there is a warning.
const EndsSoon = 7 * 24 * time.Hour

// TLS is how a connection is made secure. Its methods are safe for concurrent use.
type TLS struct {
	// Demanded is that nothing is sent in plain text. Each of the other fields implies it.
	Demanded bool
	// Base is what the files and the name are applied on top of; nil for the defaults.
	Base *tls.Config
	// Cert, Key and CA name files of PEM.
	Cert, Key, CA string
	// ServerName is the one of the certificate; "" for the URL's.
	ServerName string
	// First is the handshake before the server's welcome.
	First bool
	// Warn is called with what does not keep the connection from being made.
	Warn func(text string, attrs ...any)

	mu      sync.Mutex
	content []byte // of all files, as last used
	pair    *tls.Certificate
	pool    *x509.CertPool
}

// Set makes nats.go ask for the files at every handshake.
func (t *TLS) Set(o *natsgo.Options) {
	if !t.Demanded && t.Base == nil && t.Cert+t.CA+t.ServerName == "" && !t.First {
		return
	}
	o.Secure, o.TLSHandshakeFirst = true, t.First
	if o.TLSConfig = new(tls.Config); t.Base != nil {
		o.TLSConfig = t.Base.Clone()
	}
	o.TLSConfig.MinVersion = max(o.TLSConfig.MinVersion, tls.VersionTLS12)
	o.TLSConfig.ServerName = cmp.Or(t.ServerName, o.TLSConfig.ServerName)
	if t.Cert != "" {
		o.TLSCertCB = func() (tls.Certificate, error) {
			pair, _, err := t.files()
			if err != nil {
				return tls.Certificate{}, err
			}
			return *pair, nil
		}
	}
	if t.CA != "" {
		o.RootCAsCB = func() (*x509.CertPool, error) {
			_, pool, err := t.files()
			return pool, err
		}
	}
}

// Own returns the certificates of this side, as last used.
func (t *TLS) Own() (own []tls.Certificate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pair != nil {
		return []tls.Certificate{*t.pair}
	}
	if t.Base != nil {
		return t.Base.Certificates
	}
	return nil
}

func (t *TLS) files() (*tls.Certificate, *x509.CertPool, error) {
	if _, err := t.Reload(); err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pair, t.pool, nil
}

// Reload reads the files and tells whether they hold something new and good. It fails only while
// there has been nothing good yet.
func (t *TLS) Reload() (changed bool, err error) {
	content, pair, pool, err := t.read()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && t.content == nil:
		return false, err
	case err != nil:
		t.Warn("the TLS files are unusable; the old ones are kept", "error", err)
		return false, nil
	case bytes.Equal(content, t.content):
		return false, nil
	}
	if pair != nil && pair.Leaf != nil {
		if left := time.Until(pair.Leaf.NotAfter); left < EndsSoon {
			t.Warn("the client's TLS certificate ends soon", "file", t.Cert, "ends", pair.Leaf.NotAfter)
		}
	}
	changed = t.content != nil
	t.content, t.pair, t.pool = content, pair, pool
	return changed, nil
}

// read reads and checks all files.
func (t *TLS) read() (content []byte, pair *tls.Certificate, pool *x509.CertPool, err error) {
	content = []byte{}
	file := func(path string) []byte {
		text, readErr := os.ReadFile(path)
		err = cmp.Or(err, readErr)
		content = append(content, text...)
		return text
	}
	if t.Cert != "" {
		certPEM, keyPEM := file(t.Cert), file(t.Key)
		if err != nil {
			return nil, nil, nil, err
		}
		own, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s, %s: %w", t.Cert, t.Key, err)
		}
		pair = &own
	}
	if t.CA != "" {
		caPEM := file(t.CA)
		if err != nil {
			return nil, nil, nil, err
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(caPEM) {
			return nil, nil, nil, fmt.Errorf("%s holds no certificate", t.CA)
		}
	}
	return content, pair, pool, nil
}
