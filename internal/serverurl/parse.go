package serverurl

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Parse reads a URL as upstream does: one without a scheme takes that of the others. The
// errors of net/url are not passed on, since they quote what may be a part of a password.
func Parse(raw string, websocket bool) (*url.URL, error) {
	if strings.Contains(raw, ",") {
		return nil, errors.New("must be one URL; give several as a list, and write a comma in a password as %2C")
	}
	text := raw
	if !strings.Contains(raw, "://") {
		text = "nats://" + raw
		if websocket {
			text = "ws://" + raw
		}
	}
	u, err := url.Parse(text)
	switch {
	case twoSchemes.MatchString(raw):
		return nil, errors.New("must have its scheme once")
	case isBareIPv6(hostOf(raw)):
		return nil, errors.New(`must have an IPv6 address in brackets, as in "nats://[::1]:4222"`)
	case err != nil || strings.Contains(u.EscapedPath()+u.RawQuery+u.Fragment, "@"),
		strings.Count(u.Host, ":") > 1 && u.Host[0] != '[':
		return nil, errors.New(`must be a URL such as "nats://host:4222", with any of :/?#@% in a password written as %3A and so on`)
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		return nil, errors.New("must begin with nats://, tls://, ws:// or wss://")
	case u.Hostname() == "":
		return nil, errors.New("must name a host")
	case !ValidPort(u.Port()):
		return nil, errors.New("must have a port in 1..65535")
	case u.Fragment != "" || !IsWebsocket(u) && u.RawQuery != "":
		return nil, errors.New("must end after host and port")
	case !IsWebsocket(u) && strings.Trim(u.Path, "/") != "":
		return nil, errors.New("must end after host and port: only ws:// and wss:// have a path")
	}
	return u, nil
}

// Normal is the URL with its scheme in lower case, as upstream wants it: "TLS://" means "tls://".
func Normal(raw string) string {
	scheme := urlScheme.FindString(raw)
	return strings.ToLower(scheme) + raw[len(scheme):]
}

// DemandsTLS tells whether the URL's scheme demands TLS of its server. One among the configured URLs,
// or any setting of TLS, demands it of every server; one that only discovery names, of itself alone.
func DemandsTLS(raw string) bool {
	scheme := strings.ToLower(urlScheme.FindString(raw))
	return scheme == "tls://" || scheme == "wss://"
}

// IsWebsocket tells whether the server is reached over a WebSocket.
func IsWebsocket(u *url.URL) bool { return u.Scheme == "ws" || u.Scheme == "wss" }

// ValidPort holds for a port in 1..65535 and for none.
func ValidPort(text string) bool {
	n, _ := strconv.Atoi(text) // 0, or too large, when it is no number
	return text == "" || n >= 1 && n <= 65535
}

// Names tells whether one of the URLs is that of the server, whatever their credentials.
func Names(urls []string, server string) bool {
	host := Host(server)
	return slices.ContainsFunc(urls, func(u string) bool { return Host(u) == host })
}

// Host is a URL's host and port, by which servers are told apart, in lower case.
func Host(raw string) string {
	u, err := Parse(raw, false)
	if err != nil {
		return raw
	}
	return strings.ToLower(Address(u))
}

// Address is the host and port of a server, with the port that upstream takes where none is given.
func Address(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "ws":
		port = "80"
	case u.Scheme == "wss":
		port = "443"
	default:
		port = "4222"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// hostOf is where the host and the port stand in the text, whether or not it is a URL.
func hostOf(raw string) string {
	text := raw[len(urlScheme.FindString(raw)):]
	text = text[strings.LastIndexByte(text, '@')+1:]
	if end := strings.IndexAny(text, "/?#"); end >= 0 {
		text = text[:end]
	}
	return text
}

// isBareIPv6 holds for an IPv6 address without brackets, and for one with a port.
func isBareIPv6(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Is6()
	}
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || !ValidPort(host[colon+1:]) {
		return false
	}
	addr, _ := netip.ParseAddr(host[:colon])
	return addr.Is6()
}
