package serverurl

import (
	"regexp"
	"strings"
)

const hidden = "***"

var (
	urlScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)
	urlHost   = regexp.MustCompile(`^(\[[^\[\]@/?#]*\]|[^:@/?#\[\]]*)(:[0-9]{1,5})?(/[^?#]*)?$`)
)

// Redact replaces the password or token of a URL, or of a list of URLs, by "***". It looks at
// the text alone, since a password with a slash or a forgotten @ moves the parts that a parser
// finds: rather too much is hidden than a secret shown.
func Redact(raw string) string {
	scheme := urlScheme.FindString(raw)
	rest := raw[len(scheme):]
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return scheme + redactHost(rest)
	}
	user, _, hasPassword := strings.Cut(rest[:at], ":")
	if !hasPassword {
		return scheme + hidden + "@" + redactHost(rest[at+1:]) // a user alone is a token
	}
	return scheme + user + ":" + hidden + "@" + redactHost(rest[at+1:])
}

// redactHost leaves host, port and path alone and hides the end of everything else, which may be
// "user:password" whose host was forgotten.
func redactHost(host string) string {
	if urlHost.MatchString(host) {
		return host
	}
	return host[:strings.IndexAny(host, ":/?#")+1] + hidden
}

// RedactAll is Redact of each.
func RedactAll(raws []string) []string {
	if raws == nil {
		return nil
	}
	redacted := make([]string, len(raws))
	for i, raw := range raws {
		redacted[i] = Redact(raw)
	}
	return redacted
}
