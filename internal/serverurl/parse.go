package serverurl

import (
	"errors"
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
	case err != nil || strings.Contains(u.EscapedPath()+u.RawQuery+u.Fragment, "@"):
		return nil, errors.New(`must be a URL such as "nats://host:4222", with any of :/?#@% in a password written as %3A and so on`)
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		return nil, errors.New("must begin with nats://, tls://, ws:// or wss://")
	case u.Hostname() == "":
		return nil, errors.New("must name a host")
	case !ValidPort(u.Port()):
		return nil, errors.New("must have a port in 1..65535")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must end after host and port")
	case !IsWebsocket(u) && strings.Trim(u.Path, "/") != "":
		return nil, errors.New("must end after host and port: only ws:// and wss:// have a path")
	}
	return u, nil
}

// IsWebsocket tells whether the server is reached over a WebSocket.
func IsWebsocket(u *url.URL) bool { return u.Scheme == "ws" || u.Scheme == "wss" }

// ValidPort holds for a port in 1..65535 and for none.
func ValidPort(text string) bool {
	n, err := strconv.Atoi(text)
	return text == "" || err == nil && n >= 1 && n <= 65535
}

// Names tells whether one of the URLs is that of the server, whatever their credentials.
func Names(urls []string, server string) bool {
	return slices.ContainsFunc(urls, func(u string) bool { return Host(u) == Host(server) })
}

// Host is a URL's host and port, whatever its credentials.
func Host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Host
}
