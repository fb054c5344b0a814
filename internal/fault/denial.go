package fault

import (
	"errors"
	"regexp"

	natsgo "github.com/nats-io/nats.go"
)

// Denial is what a server did not permit.
type Denial struct {
	Subject, Queue string
	Publish        bool
}

// The server's text, as nats.go itself reads it (permissionsRe, permissionsQueueRe), and that for
// publishing.
var (
	deniedSubject = regexp.MustCompile(`(Subscription|Publish) to "(\S+)"`)
	deniedQueue   = regexp.MustCompile(`using queue "(\S+)"`)
)

// DeniedBy reads a permission error of the server; other errors deny nothing.
func DeniedBy(err error) Denial {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		return Denial{}
	}
	var d Denial
	if match := deniedSubject.FindStringSubmatch(err.Error()); match != nil {
		d.Publish, d.Subject = match[1] == "Publish", match[2]
	}
	if match := deniedQueue.FindStringSubmatch(err.Error()); match != nil {
		d.Queue = match[1]
	}
	return d
}
