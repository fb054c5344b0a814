package nats

import (
	"encoding/base64"
	"fmt"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// What is longer than the server takes would end the connection, for everybody who shares it: it is
// refused before it is sent.

// replyRoom is the longest reply subject of a request, of the client's or of upstream's own.
const replyRoom = len(".") + 22 + len(".") + 13 // behind the inbox prefix: two tokens

// lineRoom is what a line has besides its subject: a reply subject, and the sizes of header and payload.
func (c *Client) lineRoom() int { return len(c.cfg.InboxPrefix) + replyRoom + 20 }

// lineFault says what is wrong with a line of a length, or "" when nothing is.
func (c *Client) lineFault(length int) string {
	if length <= c.cfg.MaxControlLine {
		return ""
	}
	return fmt.Sprintf("it makes a protocol line of %d bytes, and max_control_line is %d", length, c.cfg.MaxControlLine)
}

// checkMessage refuses a message that cannot be published, with a reply subject of that length or other
// room in its line. It allocates nothing: it runs before every publish.
func (c *Client) checkMessage(op, subject string, reply int, header natsgo.Header, data []byte) error {
	if err := checkPublishSubject(op, subject); err != nil {
		return err
	}
	if len(header) > 0 {
		if err := checkHeader(op, subject, header); err != nil {
			return err
		}
	}
	if len(subject)+reply+20 < c.cfg.MaxControlLine {
		return nil // whatever the sizes are
	}
	if fault := c.lineFault(wire.PublishLine(len(subject), reply, header, len(data))); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	return nil
}

// objectNameFault says what is wrong with the name of an object, or "" when nothing is: others look its
// metadata up by subject.
func (c *Client) objectNameFault(bucket, name string) string {
	subject := len(object.MetaSubject(bucket, "")) + base64.URLEncoding.EncodedLen(len(name))
	question := len(c.api.Subject("DIRECT.GET.")) + len(object.StreamPrefix) + len(bucket) + 1 + subject
	return c.lineFault(question + c.lineRoom())
}

// sized adds the sizes to the error of a payload that was too large.
func (c *Client) sized(err error, header natsgo.Header, data []byte) error {
	if err == nil {
		return nil
	}
	return wire.Sized(err, header, data, c.conn.MaxPayload())
}

// checkPublishSubject refuses a subject that cannot be published to.
func checkPublishSubject(op, subject string) error {
	if fault := subjects.Fault(subject, false); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	return nil
}

// checkSubscribeSubject refuses a subject that cannot be subscribed to.
func checkSubscribeSubject(op, subject string) error {
	if fault := subjects.Fault(subject, true); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	return nil
}

// checkQueue refuses a queue group's name that would break the protocol.
func checkQueue(op, subject, queue string) error {
	if fault := subjects.Fault(queue, false); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "queue group %q: %s", queue, fault)
	}
	return nil
}

// checkName refuses what cannot name a stream or a consumer.
func checkName(op, what, name string) error { return subjects.CheckName(op, what, name) }

// checkHeader refuses what would break the protocol.
func checkHeader(op, subject string, header natsgo.Header) error {
	return subjects.CheckHeader(op, subject, header)
}
