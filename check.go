package nats

import (
	natsgo "github.com/nats-io/nats.go"

	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// What is longer than the server takes would end the connection, for everybody who shares it: it is
// refused before it is sent.

// checkMessage refuses a message that cannot be published, with a reply subject of that length or other
// room in its line. It allocates nothing: it runs before every publish.
func (c *Client) checkMessage(op, subject string, reply int, header natsgo.Header, data []byte) error {
	if fault := subjects.Fault(subject, false); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	if len(header) > 0 {
		if err := subjects.CheckHeader(op, subject, header); err != nil {
			return err
		}
	}
	if len(subject)+reply+20 < c.cfg.MaxControlLine {
		return nil // whatever the sizes are
	}
	if fault := c.conn.LineFault(wire.PublishLine(len(subject), reply, header, len(data))); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	return nil
}

// checkQueue refuses a queue group's name that would break the protocol.
func checkQueue(subject, queue string) error {
	if fault := subjects.Fault(queue, false); fault != "" {
		return fail("subscribe", subject, ErrInvalidSubject, "queue group %q: %s", queue, fault)
	}
	return nil
}

// checkName refuses what cannot name a stream or a consumer.
func checkName(op, what, name string) error { return subjects.CheckName(op, what, name) }
