package serverurl

import (
	"cmp"
	"regexp"
	"strings"
)

const hidden = "***"

var (
	urlScheme  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)
	twoSchemes = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://(nats|tls|wss?)://`)
	urlHost    = regexp.MustCompile(`^(\[[^\[\]@/?#]*\]|[^:@/?#\[\]]*)(:[0-9]{1,5}|:$)?(/[^?#]*)?$`)
	// nextURL is how a further URL of a list begins that cannot be taken for the rest of a password.
	nextURL = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*://|[^,:@/?#\[\]]*:[0-9]{1,5}(,|$))`)
)

// Redact replaces the password or token of a URL, or of a list of URLs, by "***". It looks at
// the text alone, since a password with a slash or a forgotten @ moves the parts that a parser
// finds: rather too much is hidden than a secret shown.
func Redact(raw string) string {
	scheme := cmp.Or(twoSchemes.FindString(raw), urlScheme.FindString(raw))
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

// redactHost leaves host, port and path alone and hides the end of everything else: of a query, and
// of what may be "user:password" whose host was forgotten.
func redactHost(text string) string {
	if first, rest, ok := strings.Cut(text, ","); ok && nextURL.MatchString(rest) {
		return redactHost(first) + "," + Redact(rest)
	}
	host, query := text, ""
	if end := strings.IndexAny(text, "?#"); end >= 0 {
		host, query = text[:end], text[end:end+1]+hidden
	}
	if bare, _, _ := strings.Cut(host, "/"); urlHost.MatchString(host) || isBareIPv6(bare) {
		return host + query
	}
	return text[:strings.IndexAny(text, ":/?#")+1] + hidden
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
