package auth

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
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
		"half a JWT":          {"eyJ." + seed + " a.b.c", false, false},
	} {
		gotJWT, gotSeed, gotPublic := findKeys(test.text)
		require.Equal(t, map[bool]string{true: token}[test.jwt], gotJWT, name)
		require.Equal(t, map[bool]string{true: seed}[test.seed], gotSeed, name)
		require.Equal(t, map[bool]string{true: public}[test.seed], gotPublic, name)
	}
}

// A secret that cannot be used is named by its key and file, and never shown.
func TestRead(t *testing.T) {
	t.Parallel()
	var wrong settings.Problems
	var o natsgo.Options
	Read(Keys{URLs: []string{"nats://a", "nats://me:hidden@b"}}, &wrong).Set(&o)
	assert.Equal(t, "me", o.User)
	assert.Equal(t, "hidden", o.Password)
	Read(Keys{Token: "t", URLs: []string{"nats://me@b"}}, &wrong).Set(&o)
	assert.Equal(t, "t", o.Token)
	require.NoError(t, wrong.Err())
	Read(Keys{Creds: "hidden", NKeySeed: "hidden", PasswordFile: t.TempDir()}, &wrong)
	for _, key := range []string{"creds: ", "nkey_seed: ", "password_file: "} {
		require.ErrorContains(t, wrong.Err(), key)
	}
	assert.NotContains(t, wrong.Err().Error(), "hidden")
	assert.True(t, (&Keys{TokenFile: "f"}).HasFiles())

	pair, err := nkeys.CreateUser()
	require.NoError(t, err)
	seed, err := pair.Seed()
	require.NoError(t, err)
	var half, good settings.Problems
	Read(Keys{Creds: string(seed)}, &half)
	require.ErrorContains(t, half.Err(), "creds: must hold")
	Read(Keys{Creds: "eyJ.a.b " + string(seed)}, &good).Set(&o)
	require.NoError(t, good.Err())
	token, err := o.UserJWT()
	require.NoError(t, err)
	assert.Equal(t, "eyJ.a.b", token)
	signed, err := o.SignatureCB([]byte("nonce"))
	require.NoError(t, err)
	require.NoError(t, pair.Verify([]byte("nonce"), signed))
	o = natsgo.Options{}
	Read(Keys{NKeySeed: string(seed)}, &good).Set(&o)
	require.NoError(t, good.Err())
	assert.Nil(t, o.UserJWT)
}

// What is half written is not used, and what is renewed is, with a warning when it ends soon.
func TestTLSFiles(t *testing.T) {
	t.Parallel()
	ca := conntest.NewAuthority(t)
	ca.Issue(t, "client", nil)
	var warnings []string
	files := &TLS{
		Cert: ca.Path("client.pem"), Key: ca.Path("client-key.pem"), CA: ca.Path("ca.pem"),
		Warn: func(text string, _ ...any) { warnings = append(warnings, text) },
	}
	var o natsgo.Options
	files.Set(&o)
	assert.True(t, o.Secure)
	assert.Empty(t, files.Own())
	first, err := o.TLSCertCB()
	require.NoError(t, err)
	_, err = o.RootCAsCB()
	require.NoError(t, err)
	changed, err := files.Reload()
	require.NoError(t, err)
	assert.False(t, changed)

	require.NoError(t, os.WriteFile(files.Cert, []byte("half"), 0o600))
	changed, err = files.Reload()
	require.NoError(t, err)
	assert.False(t, changed)
	assert.Equal(t, first.Leaf, files.Own()[0].Leaf)
	ca.Issue(t, "client", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	changed, err = files.Reload()
	require.NoError(t, err)
	assert.True(t, changed)
	assert.Equal(t, []string{"the TLS files are unusable; the old ones are kept", "the client's TLS certificate ends soon"}, warnings)

	missing := &TLS{CA: ca.Path("none.pem")}
	_, err = missing.Reload()
	require.ErrorIs(t, err, os.ErrNotExist)
	authorities := &TLS{CA: ca.Path("ca.pem"), ServerName: "nats.test"}
	authorities.Set(&o)
	assert.Equal(t, "nats.test", o.TLSConfig.ServerName)
	_, err = authorities.Reload()
	require.NoError(t, err, "without a certificate of its own")
	plain := natsgo.Options{}
	(&TLS{}).Set(&plain)
	assert.False(t, plain.Secure)
}

// TLS is demanded by any word about it, and of a version that is none of the old ones.
func TestTLSIsSet(t *testing.T) {
	t.Parallel()
	base := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "base"}
	for _, test := range []struct {
		tls     *TLS
		demands bool
		version uint16
		name    string
	}{
		{tls: &TLS{}},
		{&TLS{Demanded: true}, true, tls.VersionTLS12, ""},
		{&TLS{First: true}, true, tls.VersionTLS12, ""},
		{&TLS{Cert: "c"}, true, tls.VersionTLS12, ""},
		{&TLS{CA: "a"}, true, tls.VersionTLS12, ""},
		{&TLS{ServerName: "s"}, true, tls.VersionTLS12, "s"},
		{&TLS{Base: base}, true, tls.VersionTLS13, "base"},
		{&TLS{Base: base, ServerName: "s"}, true, tls.VersionTLS13, "s"},
	} {
		var o natsgo.Options
		test.tls.Set(&o)
		require.Equal(t, test.demands, o.Secure)
		require.Equal(t, test.tls.First, o.TLSHandshakeFirst)
		require.Equal(t, test.tls.Cert != "", o.TLSCertCB != nil)
		require.Equal(t, test.tls.CA != "", o.RootCAsCB != nil)
		if !test.demands {
			require.Nil(t, o.TLSConfig)
			continue
		}
		require.NotSame(t, base, o.TLSConfig)
		require.Equal(t, test.version, o.TLSConfig.MinVersion)
		require.Equal(t, test.name, o.TLSConfig.ServerName)
	}
}
