package settings

import (
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nkeys"
)

// ReadFile returns the content of a regular file: reading another one could wait for ever.
func ReadFile(path string) ([]byte, error) {
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

// ReadSecret returns the content of a file without the white space that editors leave around it.
func ReadSecret(path string) (string, error) {
	content, err := ReadFile(path)
	text := strings.TrimSpace(string(content))
	if err == nil && text == "" {
		err = fmt.Errorf("must hold a secret, but %q is empty", path)
	}
	return text, err
}

// FindKeys finds a user's JWT and NKey in what the tools of NATS write, whatever comments, decorations
// and public keys stand around them. What it does not find is empty.
func FindKeys(text string) (jwt, seed, public string) {
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
