package settings

import (
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Between refuses a number out of its bounds. A highest of 0 is none.
func (ps *Problems) Between(key string, value, least, highest int) {
	switch {
	case value >= least && (highest == 0 || value <= highest):
	case highest == 0:
		ps.Add(key, "must be at least %d, got %d", least, value)
	default:
		ps.Add(key, "must be in %d..%d, got %d", least, highest, value)
	}
}

// OneOf refuses a word that is none of two. An empty one is the default.
func (ps *Problems) OneOf(key, value, first, second string) {
	if !slices.Contains([]string{"", first, second}, value) {
		ps.Add(key, "must be %q or %q, got %q", first, second, value)
	}
}

// Needs refuses a value without the other one.
func (ps *Problems) Needs(key, value, other, otherValue string) {
	if value != "" && otherValue == "" {
		ps.Add(key, "needs %s", other)
	}
}

// File returns the content of the file that a key names, or nil.
func (ps *Problems) File(key, path string) []byte {
	if path == "" {
		return nil
	}
	content, err := readFile(path)
	if err != nil {
		ps.Add(key, "%w", err)
	}
	return content
}

// Authorities checks a file of CA certificates.
func (ps *Problems) Authorities(key, path string) {
	if pem := ps.File(key, path); pem != nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		ps.Add(key, "must hold a certificate in PEM, found none in %q", path)
	}
}

// Secret returns the secret of a key, or that in the file which the key "x_file" names, without the white space that
// editors leave around it.
func (ps *Problems) Secret(key, value, file string) string {
	if file == "" {
		return value
	}
	content, err := readFile(file)
	text := strings.TrimSpace(string(content))
	switch {
	case err != nil:
		ps.Add(key+"_file", "%w", err)
	case text == "":
		ps.Add(key+"_file", "must hold a secret, but %q is empty", file)
	}
	return text
}

// Lacks refuses a secret without telling it: it may be only half wrong.
func (ps *Problems) Lacks(key, file, what string) {
	if file == "" {
		ps.Add(key, "must hold %s", what)
	} else {
		ps.Add(key+"_file", "must hold %s, found none in %q", what, file)
	}
}

// readFile returns the content of a regular file: reading another one could wait for ever.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("must be a regular file, got %q", path)
	}
	var content []byte
	if err == nil {
		content, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("must be a readable file: %w", err)
	}
	return content, nil
}
