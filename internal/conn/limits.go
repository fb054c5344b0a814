package conn

import "fmt"

// replyRoom is the longest reply subject of a request, of the client's or of upstream's own.
const replyRoom = len(".") + 22 + len(".") + 13 // behind the inbox prefix: two tokens

// LineRoom is what a line has besides its subject: a reply subject, and the sizes of header and payload.
func (c *Conn) LineRoom() int { return len(c.o.NATS.InboxPrefix) + replyRoom + 20 }

// LineFault says what is wrong with a line of a length, or "" when nothing is. What is longer than a server takes would
// end the connection, for everybody who shares it.
func (c *Conn) LineFault(length int) string {
	if length <= c.o.MaxControlLine {
		return ""
	}
	return fmt.Sprintf("it makes a protocol line of %d bytes, and max_control_line is %d", length, c.o.MaxControlLine)
}
