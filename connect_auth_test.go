package nats_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// secrets collects all that a test's clients say, to be searched for secrets at its end.
type secrets struct {
	t      testing.TB
	log    logBuffer
	events eventLog
	errors []string
}

// watchSecrets fails the test when a client made by its connect, or an error that it returns, shows
// one of the values.
func watchSecrets(t testing.TB, values ...string) *secrets {
	s := &secrets{t: t}
	t.Cleanup(func() {
		said := s.log.String() + strings.Join(s.errors, "\n") + fmt.Sprintf("%+v", s.events.all())
		for _, value := range values {
			if strings.Contains(said, value) {
				t.Errorf("a secret is shown: %s", strings.ReplaceAll(said, value, "<SECRET>"))
			}
		}
	})
	return s
}

func (s *secrets) connect(cfg nats.Config, opts ...nats.Option) (*nats.Client, error) {
	cfg.ReconnectWait, cfg.ReconnectMaxWait = 20*time.Millisecond, 20*time.Millisecond
	client, err := nats.NewClient(&cfg, append(opts, nats.WithLogger(s.log.logger()), nats.WithEventHandler(s.events.handle))...)
	if err != nil {
		s.errors = append(s.errors, err.Error(), fmt.Sprintf("%+v %#v", err, err))
		return nil, err
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client, nil
}

// authServer demands what the options set.
func authServer(t testing.TB, demand func(*server.Options)) *natstest.Server {
	t.Helper()
	return natstest.RunServer(t, natstest.WithoutJetStream(), natstest.WithConfig(demand))
}

func newUser(t testing.TB) (seed, public string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	require.NoError(t, err)
	text, err := pair.Seed()
	require.NoError(t, err)
	public, err = pair.PublicKey()
	require.NoError(t, err)
	return string(text), public
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	right, public := newUser(t)
	wrong, _ := newUser(t)
	file := func(content string) string { return inDir(t, "secret", content) }
	password := authServer(t, func(o *server.Options) { o.Username, o.Password = "user", "canary1" })
	token := authServer(t, func(o *server.Options) { o.Authorization = "canary2" })
	nkey := authServer(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
	said := watchSecrets(t, "canary", right, wrong)
	inURL := func(s *natstest.Server, user string) []string {
		return []string{strings.Replace(s.URL(), "//", "//"+user+"@", 1)}
	}
	for name, test := range map[string]struct {
		server      *natstest.Server
		right, fail nats.Config
	}{
		"password": {password,
			nats.Config{Username: "user", Password: "canary1"}, nats.Config{Username: "user", Password: "canary-bad"}},
		"password file": {password,
			nats.Config{Username: "user", PasswordFile: file("  canary1\n")}, nats.Config{Username: "user", PasswordFile: file("canary-bad")}},
		"password in the URL": {password,
			nats.Config{URLs: inURL(password, "user:canary1")}, nats.Config{URLs: inURL(password, "user:canary-bad")}},
		"token": {token,
			nats.Config{Token: "canary2"}, nats.Config{Token: "canary-bad"}},
		"token file": {token,
			nats.Config{TokenFile: file("canary2\r\n")}, nats.Config{TokenFile: file("canary-bad")}},
		"token in the URL": {token,
			nats.Config{URLs: inURL(token, "canary2")}, nats.Config{URLs: inURL(token, "canary-bad")}},
		"nkey": {nkey,
			nats.Config{NKeySeed: right}, nats.Config{NKeySeed: wrong}},
		"nkey file": {nkey,
			nats.Config{NKeySeedFile: file(right + "\n")}, nats.Config{NKeySeedFile: file(wrong)}},
		"nkey file of nk": {nkey,
			nats.Config{NKeySeedFile: file(right + "\r\n" + public + "\r\n")}, nats.Config{NKeySeedFile: file(wrong + "\n" + public)}},
		"decorated nkey file": {nkey,
			nats.Config{NKeySeedFile: file("# of\tSUE\n-----BEGIN USER NKEY SEED-----\n  " + right + "\n------END USER NKEY SEED------\n")},
			nats.Config{NKeySeed: "-----BEGIN USER NKEY SEED-----\n" + wrong + "\n------END USER NKEY SEED------\n"}},
		"nothing": {password, nats.Config{Username: "user", Password: "canary1"}, nats.Config{}},
	} {
		for _, cfg := range []*nats.Config{&test.right, &test.fail} {
			if cfg.URLs == nil {
				cfg.URLs = []string{test.server.URL()}
			}
		}
		client, err := said.connect(test.right)
		require.NoError(t, err, name)
		require.NoError(t, client.Ping(within(t, patience)), name)

		_, err = said.connect(test.fail)
		require.ErrorIs(t, err, nats.ErrAuthorization, name)
		require.ErrorIs(t, err, natsgo.ErrAuthorization, name)
		require.ErrorContains(t, err, strings.TrimPrefix(test.server.URL(), "nats://"), name)
	}
}

// A user in a URL counts with and without a scheme, and for servers that discovery names too.
func TestUserInAURLHoldsForEveryServer(t *testing.T) {
	t.Parallel()
	server := authServer(t, func(o *server.Options) { o.Username, o.Password = "user", "canary1" })
	said := watchSecrets(t, "canary1")
	for _, url := range []string{"nats://user:canary1@127.0.0.1:1", "user:canary1@127.0.0.1:1", "NATS://user:canary1@127.0.0.1:1"} {
		client, err := said.connect(nats.Config{URLs: []string{url}}, nats.WithResolver(fixedServers{server.URL()}))
		if assert.NoError(t, err) {
			assert.NoError(t, client.Ping(within(t, patience)))
		}
	}
}

// A secret in a file may change while the server is away, and while the client is refused.
func TestAuthenticationRotates(t *testing.T) {
	t.Parallel()
	oldSeed, oldPublic := newUser(t)
	newSeed, newPublic := newUser(t)
	for name, test := range map[string]struct {
		oldSecret, newSecret string
		demand               func(o *server.Options, rotated bool)
		use                  func(c *nats.Config, file string)
	}{
		"password": {"canary-old", "canary-new", func(o *server.Options, rotated bool) {
			o.Username, o.Password = "user", map[bool]string{false: "canary-old", true: "canary-new"}[rotated]
		}, func(c *nats.Config, file string) { c.Username, c.PasswordFile = "user", file }},
		"token": {"canary-old", "canary-new", func(o *server.Options, rotated bool) {
			o.Authorization = map[bool]string{false: "canary-old", true: "canary-new"}[rotated]
		}, func(c *nats.Config, file string) { c.TokenFile = file }},
		"nkey of the same user": {oldSeed, oldSeed, func(o *server.Options, _ bool) {
			o.Nkeys = []*server.NkeyUser{{Nkey: oldPublic}}
		}, func(c *nats.Config, file string) { c.NKeySeedFile = file }},
		"nkey": {oldSeed, newSeed, func(o *server.Options, rotated bool) {
			o.Nkeys = []*server.NkeyUser{{Nkey: map[bool]string{false: oldPublic, true: newPublic}[rotated]}}
		}, func(c *nats.Config, file string) { c.NKeySeedFile = file }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said := watchSecrets(t, "canary", oldSeed, newSeed)
			rotated := false
			s := authServer(t, func(o *server.Options) { test.demand(o, rotated) })
			file := inDir(t, "secret", test.oldSecret)
			cfg := nats.Config{URLs: []string{s.URL()}}
			test.use(&cfg, file)
			client, err := said.connect(cfg)
			require.NoError(t, err)
			s.Stop()
			rotated = true
			s.Restart()
			if test.oldSecret != test.newSecret {
				eventually(t, "refused", func() bool {
					return slices.ContainsFunc(said.events.of(nats.EventReconnectFailed), func(e nats.Event) bool { return errors.Is(e.Err, nats.ErrAuthorization) })
				})
			}
			require.NoError(t, os.WriteFile(file, []byte(test.newSecret+"\n"), 0o600))
			eventually(t, "reconnected", client.IsConnected)
			require.NoError(t, client.Ping(within(t, patience)))
		})
	}
}

// A secret whose file is away, or holds none, is named, and used when it is back.
func TestSecretFileAwayAtReconnect(t *testing.T) {
	t.Parallel()
	trusted := newOperator(t)
	creds, credsSeed := trusted.creds()
	seed, public := newUser(t)
	for key, test := range map[string]struct {
		secret string
		demand func(*server.Options)
		use    func(c *nats.Config, file string)
	}{
		"password_file": {"canary", func(o *server.Options) { o.Username, o.Password = "user", "canary" },
			func(c *nats.Config, file string) { c.Username, c.PasswordFile = "user", file }},
		"token_file": {"canary", func(o *server.Options) { o.Authorization = "canary" },
			func(c *nats.Config, file string) { c.TokenFile = file }},
		"nkey_seed_file": {seed, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} },
			func(c *nats.Config, file string) { c.NKeySeedFile = file }},
		"creds_file": {creds, trusted.demand,
			func(c *nats.Config, file string) { c.CredsFile = file }},
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			said := watchSecrets(t, "canary", seed, credsSeed)
			s := authServer(t, test.demand)
			file := inDir(t, "secret", test.secret)
			cfg := nats.Config{URLs: []string{s.URL()}}
			test.use(&cfg, file)
			client, err := said.connect(cfg)
			require.NoError(t, err)
			named := func(reason string) func() bool {
				return func() bool {
					return strings.Contains(fmt.Sprint(client.Stats().ConnectError), key+": must "+reason)
				}
			}
			require.NoError(t, os.Remove(file))
			s.Restart()
			eventually(t, "the missing file is named", named("be a readable file: stat "+file))
			require.ErrorIs(t, client.Stats().ConnectError, nats.ErrInvalidConfig)
			require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
			eventually(t, "the empty file is named", named(fmt.Sprintf("hold a secret, but %q is empty", file)))
			require.NoError(t, os.WriteFile(file, []byte(test.secret), 0o600))
			eventually(t, "reconnected", client.IsConnected)
			require.NoError(t, client.Ping(within(t, patience)))
		})
	}
}

// Servers that discovery names have no credentials in their URLs; those of the configured ones hold.
func TestURLCredentialsHoldForDiscoveredServers(t *testing.T) {
	t.Parallel()
	for user, s := range map[string]*natstest.Server{
		"user:canary": authServer(t, func(o *server.Options) { o.Username, o.Password = "user", "canary" }),
		"canary":      authServer(t, func(o *server.Options) { o.Authorization = "canary" }),
	} {
		said := watchSecrets(t, "canary")
		resolver := resolverFunc(func(context.Context) ([]string, error) { return []string{s.URL()}, nil })
		client, err := said.connect(nats.Config{URLs: []string{"nats://" + user + "@" + refused}}, nats.WithResolver(resolver))
		require.NoError(t, err)
		assert.True(t, client.IsConnected())
	}
}

// operator is a root of trust with one account, made for a test.
type operator struct {
	t         testing.TB
	operator  nkeys.KeyPair
	account   nkeys.KeyPair
	accountID string
	systemID  string // of the account that JetStream needs
	resolver  *server.MemAccResolver
	claims    *jwt.OperatorClaims
}

func newOperator(t testing.TB) *operator {
	t.Helper()
	o := &operator{t: t, resolver: &server.MemAccResolver{}}
	var err error
	o.operator, err = nkeys.CreateOperator()
	require.NoError(t, err)
	o.account, err = nkeys.CreateAccount()
	require.NoError(t, err)
	o.accountID, err = o.account.PublicKey()
	require.NoError(t, err)
	operatorID, err := o.operator.PublicKey()
	require.NoError(t, err)
	o.claims = jwt.NewOperatorClaims(operatorID)
	system, err := nkeys.CreateAccount()
	require.NoError(t, err)
	o.systemID, err = system.PublicKey()
	require.NoError(t, err)
	account, err := jwt.NewAccountClaims(o.systemID).Encode(o.operator)
	require.NoError(t, err)
	require.NoError(t, o.resolver.Store(o.systemID, account))
	o.limit(nil)
	return o
}

// limit makes the account's claims what change makes of fresh ones, on running servers too.
func (o *operator) limit(change func(*jwt.AccountClaims), running ...*natstest.Server) {
	o.t.Helper()
	claims := jwt.NewAccountClaims(o.accountID)
	if change != nil {
		change(claims)
	}
	text, err := claims.Encode(o.operator)
	require.NoError(o.t, err)
	require.NoError(o.t, o.resolver.Store(o.accountID, text))
	claims, err = jwt.DecodeAccountClaims(text)
	require.NoError(o.t, err)
	for _, s := range running {
		account, err := s.Embedded().LookupAccount(o.accountID)
		require.NoError(o.t, err)
		s.Embedded().UpdateAccountClaims(account, claims)
	}
}

func (o *operator) demand(options *server.Options) {
	options.TrustedOperators = []*jwt.OperatorClaims{o.claims}
	options.AccountResolver = o.resolver
	options.SystemAccount = o.systemID
}

// creds returns a credentials file of a new user, and its seed.
func (o *operator) creds(change ...func(*jwt.UserClaims)) (content, userSeed string) {
	o.t.Helper()
	userSeed, public := newUser(o.t)
	claims := jwt.NewUserClaims(public)
	for _, change := range change {
		change(claims)
	}
	token, err := claims.Encode(o.account)
	require.NoError(o.t, err)
	formatted, err := jwt.FormatUserConfig(token, []byte(userSeed))
	require.NoError(o.t, err)
	return string(formatted), userSeed
}

func TestAuthenticationByCredsFile(t *testing.T) {
	t.Parallel()
	trusted, stranger := newOperator(t), newOperator(t)
	s := authServer(t, trusted.demand)
	first, firstSeed := trusted.creds()
	second, secondSeed := trusted.creds()
	foreign, foreignSeed := stranger.creds()
	said := watchSecrets(t, firstSeed, secondSeed, foreignSeed)
	file := inDir(t, "user.creds", first)
	client, err := said.connect(nats.Config{URLs: []string{s.URL()}, CredsFile: file})
	require.NoError(t, err)
	inline, err := said.connect(nats.Config{URLs: []string{s.URL()}, Creds: first})
	require.NoError(t, err)
	require.NoError(t, inline.Ping(within(t, patience)))
	_, err = said.connect(nats.Config{URLs: []string{s.URL()}, Creds: foreign})
	require.ErrorIs(t, err, nats.ErrAuthorization)
	_, err = said.connect(nats.Config{URLs: []string{s.URL()}, CredsFile: inDir(t, "foreign.creds", foreign)})
	require.ErrorIs(t, err, nats.ErrAuthorization)
	require.ErrorContains(t, err, s.URL())

	// Away for a moment, then a new user's.
	require.NoError(t, os.Remove(file))
	s.Restart()
	eventually(t, "disconnected", func() bool { return len(said.events.of(nats.EventDisconnected)) > 0 })
	require.NoError(t, os.WriteFile(file, []byte(second), 0o600))
	eventually(t, "reconnected", func() bool { return len(said.events.of(nats.EventReconnected)) > 0 })
	require.NoError(t, client.Ping(within(t, patience)))
}
