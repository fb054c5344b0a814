package fault

import (
	"errors"
	"fmt"
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

// Roomless names in err, by which a server has no room for one more subscription, which one that is.
func Roomless(err error, subject, queue string) error {
	text := fmt.Sprintf("Subscription to %q", subject)
	if queue != "" {
		text += fmt.Sprintf(" using queue %q", queue)
	}
	return fmt.Errorf("%w: %s", err, text)
}

// DeniedBy reads a permission error of the server, and what Roomless makes; other errors deny nothing.
func DeniedBy(err error) Denial {
	if !errors.Is(err, natsgo.ErrPermissionViolation) && !errors.Is(err, natsgo.ErrMaxSubscriptionsExceeded) {
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
