package settings_test

import (
	"encoding/pem"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
)

func TestSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	var none, wrong settings.Problems
	require.NoError(t, os.WriteFile(path, []byte(" a b\r\n\n"), 0o600))
	require.Equal(t, "a b", none.Secret("token", "", path))
	require.Equal(t, "plain", none.Secret("token", "plain", ""))
	require.NoError(t, none.Err())

	require.NoError(t, os.WriteFile(path, []byte("\n"), 0o600))
	for _, file := range []string{path, dir, filepath.Join(dir, "none")} {
		require.Empty(t, wrong.Secret("token", "", file))
	}
	require.ErrorContains(t, wrong.Err(), `token_file: must hold a secret, but "`+path)
	require.ErrorContains(t, wrong.Err(), "must be a regular file")
	require.ErrorIs(t, wrong.Err(), fs.ErrNotExist)
}

func TestChecks(t *testing.T) {
	t.Parallel()
	var none, wrong settings.Problems
	none.Between("n", 5, 0, 5)
	none.Between("n", 0, 0, 5)
	none.Between("n", 9, -1, 0)
	none.OneOf("w", "", "a", "b")
	none.Needs("a", "", "b", "")
	none.Needs("a", "set", "b", "set")
	none.Authorities("ca", "")
	server := httptest.NewTLSServer(nil)
	server.Close()
	ca, empty := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	require.NoError(t, os.WriteFile(empty, []byte("x"), 0o600))
	none.Authorities("ca", ca)
	require.NoError(t, none.Err())
	wrong.Between("n", 6, 0, 5)
	wrong.Between("m", -2, -1, 0)
	wrong.OneOf("w", "c", "a", "b")
	wrong.Needs("a", "set", "b", "")
	wrong.Authorities("ca", empty)
	wrong.Authorities("ca", empty+"/none")
	wrong.Lacks("s", "", "a seed")
	wrong.Lacks("s", "f", "a seed")
	for _, text := range []string{
		"n: must be in 0..5, got 6", "m: must be at least -1, got -2", `w: must be "a" or "b", got "c"`, "a: needs b",
		"ca: must hold a certificate in PEM", "ca: must be a readable", "s: must hold a seed", `s_file: must hold a seed, found none in "f"`,
	} {
		require.ErrorContains(t, wrong.Err(), text)
	}
}
