package conn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// verdict is what becomes of an -ERR of the server.
type verdict int

const (
	pass    verdict = iota // nats.go knows it
	swallow                // the connection goes on; nats.go would close it
	end                    // the server closes the connection; nats.go would do so for good
)

// judge tells what becomes of an -ERR. Nats.go (Conn.processErr) takes what it does not know for the
// connection's end, although the server (client.go, parser.go) goes on after an invalid subject, and
// although a connection that is closed can be made again. It tells its handler of denials, and of a user who
// is let in no more.
func judge(text string) verdict {
	switch lower := strings.ToLower(text); {
	case denialOf(text) != nil, serverError(text).isOfUser():
		return pass
	case strings.HasPrefix(lower, "invalid subject"), strings.HasPrefix(lower, "invalid publish subject"):
		return swallow
	}
	return end
}

// denialOf returns the error that nats.go makes of an -ERR that denies something, or nil.
func denialOf(text string) error {
	switch lower := strings.ToLower(text); {
	case strings.HasPrefix(lower, "permissions violation"):
		return fmt.Errorf("%w: %s", natsgo.ErrPermissionViolation, text)
	case strings.HasPrefix(lower, "maximum subscriptions exceeded"):
		return natsgo.ErrMaxSubscriptionsExceeded
	}
	return nil
}

// IsDenial tells whether an error is that of something which the server denied: a subject, or one more
// subscription. The connection goes on.
func IsDenial(err error) bool {
	return errors.Is(err, natsgo.ErrPermissionViolation) || errors.Is(err, natsgo.ErrMaxSubscriptionsExceeded)
}

// serverError is an -ERR of the server.
type serverError string

func (e serverError) Error() string { return "the server says: " + string(e) }

// Is tells whether target is nats.go's error for it.
func (e serverError) Is(target error) bool {
	err := e.upstream()
	return err != nil && err == target
}

// upstream returns nats.go's error for it, or nil. After each of these the server closes the connection.
func (e serverError) upstream() error {
	text := strings.ToLower(string(e))
	for begin, err := range upstreams {
		if strings.HasPrefix(text, begin) {
			return err
		}
	}
	return nil
}

// isOfUser tells whether the user is not let in, or no more.
func (e serverError) isOfUser() bool { return errors.Is(fault.Kind(e), fault.ErrAuthorization) }

var upstreams = map[string]error{
	natsgo.AUTHORIZATION_ERR:                  natsgo.ErrAuthorization,
	natsgo.AUTHENTICATION_EXPIRED_ERR:         natsgo.ErrAuthExpired,
	natsgo.AUTHENTICATION_REVOKED_ERR:         natsgo.ErrAuthRevoked,
	natsgo.ACCOUNT_AUTHENTICATION_EXPIRED_ERR: natsgo.ErrAccountAuthExpired,
	natsgo.MAX_CONNECTIONS_ERR:                natsgo.ErrMaxConnectionsExceeded,
	natsgo.MAX_ACCOUNT_CONNECTIONS_ERR:        natsgo.ErrMaxAccountConnectionsExceeded,
	natsgo.STALE_CONNECTION:                   natsgo.ErrStaleConnection,
}

// errText returns the text of an -ERR line.
func errText(line []byte) string {
	return strings.Trim(strings.TrimSpace(string(bytes.TrimPrefix(line, []byte("-ERR")))), "'")
}

// reader follows the protocol of the server, so that it finds each -ERR and INFO and nothing in a payload
// that only looks so.
type reader struct {
	source io.Reader
	onErr  func(text string) verdict
	onInfo func(line []byte)
	onPong func()

	skip    int    // bytes of a payload that are still to come
	partial []byte // of a control line that is not complete
	held    []byte // the same, where it may be an -ERR: nats.go has not seen it
	ready   []byte // for nats.go
	end     error
}

// maxMessage bounds a message, of which nats.go believes what is announced and allocates it.
const maxMessage = 1 << 30

var (
	errEndless = errors.New("the server's line has no end")
	errTooMuch = errors.New("the server announces a message of more than 1 GiB")
)

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for {
		if len(r.ready) > 0 {
			n := copy(p, r.ready)
			r.ready = r.ready[n:]
			return n, nil
		}
		if r.end != nil {
			return 0, r.end
		}
		buffer := p
		if len(r.held) >= len(p) {
			buffer = make([]byte, len(r.held)+len(p))
		}
		old := copy(buffer, r.held)
		r.held = r.held[:0]
		n, err := r.source.Read(buffer[old:])
		if n = r.follow(buffer[:old+n], old); len(buffer) > len(p) {
			r.ready, n = buffer[:n], 0
		}
		if n > 0 || err != nil && len(r.ready) == 0 {
			return n, err
		}
	}
}

// follow reads p, whose first old bytes it has seen, and returns how much of it is for nats.go.
func (r *reader) follow(p []byte, old int) int {
	i := old
	start := i - len(r.partial) // of the line; below 0 where its begin has been delivered
	for i < len(p) {
		if r.skip > 0 {
			n := min(r.skip, len(p)-i)
			r.skip -= n
			i += n
			start = i
			continue
		}
		length := bytes.IndexByte(p[i:], '\n') + 1
		if length == 0 {
			r.partial = append(r.partial, p[i:]...)
			if len(r.partial) > maxInfo {
				r.end = errEndless
				return max(start, 0)
			}
			if r.partial[0] == '-' {
				r.held = append(r.held, r.partial...)
				return start
			}
			return len(p)
		}
		line := p[i : i+length]
		if len(r.partial) > 0 {
			r.partial = append(r.partial, line...)
			line = r.partial
		}
		i += length
		switch line[0] {
		case 'M', 'H':
			size := payloadSize(line)
			if size > maxMessage {
				r.end = errTooMuch
				return max(start, 0)
			}
			r.skip = size + len("\r\n")
		case 'I':
			r.onInfo(line)
		case 'P':
			if bytes.HasPrefix(line, []byte("PONG")) {
				r.onPong()
			}
		case '-':
			text := errText(line)
			switch r.onErr(text) {
			case end:
				r.end = serverError(text)
				return start
			case swallow:
				p = append(p[:start], p[i:]...)
				i = start
			case pass:
			}
		}
		r.partial = r.partial[:0]
		start = i
	}
	return len(p)
}

// payloadSize returns the last number of a control line, and no more than one above maxMessage.
func payloadSize(line []byte) int {
	e := len(line) - 1
	if e > 0 && line[e-1] == '\r' {
		e--
	}
	b := e
	for b > 0 && line[b-1] >= '0' && line[b-1] <= '9' {
		b--
	}
	size := int64(0)
	for _, c := range line[b:e] {
		size = min(10*size+int64(c-'0'), maxMessage+1)
	}
	return int(size)
}

// operation is one that a client sends.
type operation struct {
	verb    string // PUB, HPUB, SUB, …
	subject string
	queue   string // of a SUB
	line    int    // bytes of its control line
	payload int    // bytes of its headers and payload
	size    int    // bytes in all
}

// nextOperation reads the first operation of p; ok is false when p does not hold it whole.
func nextOperation(p []byte) (o operation, ok bool) {
	o.line = bytes.IndexByte(p, '\n') + 1
	if o.line == 0 {
		return o, false
	}
	line := p[:o.line]
	verb, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
	subject, _, _ := bytes.Cut(rest, []byte(" "))
	o.verb, o.subject, o.size = string(verb), string(subject), o.line
	switch o.verb {
	case "PUB", "HPUB":
		o.payload = payloadSize(line)
		o.size += o.payload + len("\r\n")
	case "SUB":
		if fields := bytes.Fields(rest); len(fields) > 2 {
			o.queue = string(fields[1])
		}
	}
	return o, o.size <= len(p)
}

func (o operation) String() string {
	if o.payload > 0 {
		return fmt.Sprintf("%s %.64q with %d bytes", o.verb, o.subject, o.payload)
	}
	return fmt.Sprintf("%s %.64q in a line of %d bytes", o.verb, o.subject, o.line)
}

// lastMessage returns the last publish or subscription in p, which begins with an operation.
func lastMessage(p []byte) (last operation, ok bool) {
	for len(p) > 0 {
		o, whole := nextOperation(p)
		if o.verb == "PUB" || o.verb == "HPUB" || o.verb == "SUB" {
			last, ok = o, true
		}
		if !whole {
			break
		}
		p = p[o.size:]
	}
	return last, ok
}

// parseInfo reads an INFO line.
func parseInfo(line []byte) (info natsgo.ServerInfo, err error) {
	body, ok := bytes.CutPrefix(line, []byte("INFO "))
	if !ok {
		return info, errors.New("the server does not speak the NATS protocol: it sent no INFO")
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return info, errors.New("the server's INFO cannot be read")
	}
	return info, nil
}
