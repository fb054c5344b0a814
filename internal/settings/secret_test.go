package settings_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
)

func TestFindKeys(t *testing.T) {
	t.Parallel()
	pair, err := nkeys.CreateUser()
	require.NoError(t, err)
	rawSeed, err := pair.Seed()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	account, err := nkeys.CreateAccount()
	require.NoError(t, err)
	accountSeed, err := account.Seed()
	require.NoError(t, err)
	token, err := jwt.NewUserClaims(public).Encode(account)
	require.NoError(t, err)
	creds, err := jwt.FormatUserConfig(token, rawSeed)
	require.NoError(t, err)
	decorated, err := jwt.DecorateSeed(rawSeed)
	require.NoError(t, err)

	seed := string(rawSeed)
	broken := seed[:len(seed)-2] + "AA"
	for name, test := range map[string]struct {
		text      string
		jwt, seed bool
	}{
		"seed":                {seed, false, true},
		"nk -gen -pubout":     {seed + "\n" + public + "\n", false, true},
		"decorated":           {string(decorated), false, true},
		"comment":             {"# SUPERB: of the bus\n\t" + seed + "  # ours\r\n", false, true},
		"an account's before": {string(accountSeed) + "\n" + seed, false, true},
		"only an account's":   {string(accountSeed), false, false},
		"a broken one":        {broken, false, false},
		"the public key":      {public, false, false},
		"credentials":         {string(creds), true, true},
		"on one line":         {strings.ReplaceAll(string(creds), "\n", " "), true, true},
		"of Windows":          {strings.ReplaceAll(string(creds), "\n", "\r\n"), true, true},
		"bare":                {token + "\n" + seed, true, true},
		"JWT":                 {token, true, false},
		"nothing":             {"", false, false},
	} {
		gotJWT, gotSeed, gotPublic := settings.FindKeys(test.text)
		require.Equal(t, map[bool]string{true: token}[test.jwt], gotJWT, name)
		require.Equal(t, map[bool]string{true: seed}[test.seed], gotSeed, name)
		require.Equal(t, map[bool]string{true: public}[test.seed], gotPublic, name)
	}
}

func TestReadSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(path, []byte(" a b\r\n\n"), 0o600))
	text, err := settings.ReadSecret(path)
	require.NoError(t, err)
	require.Equal(t, "a b", text)

	require.NoError(t, os.WriteFile(path, []byte("\n"), 0o600))
	_, err = settings.ReadSecret(path)
	require.ErrorContains(t, err, path)
	_, err = settings.ReadSecret(dir)
	require.ErrorContains(t, err, "must be a regular file")
	_, err = settings.ReadSecret(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}
