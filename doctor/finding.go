package doctor

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Wants are what a service needs besides a connection. The zero value asks for nothing.
type Wants struct {
	// Publish lists subjects to publish to.
	Publish []string
	// Subscribe lists subjects to subscribe to, each with its queue group, if it has one, behind a space:
	// "orders.> workers".
	Subscribe []string
	// Streams must exist.
	Streams []string
	// Consumers must exist, be pull consumers, and be open to this user. They are named "stream/consumer".
	Consumers []string
	// Buckets of keys must exist.
	Buckets []string
	// Objects lists the buckets of objects that must exist.
	Objects []string
}

// Status is what became of a check.
type Status string

// What becomes of a check.
const (
	// Passed: it works.
	Passed Status = "passed"
	// Failed: it does not work, or soon will not.
	Failed Status = "failed"
	// NotChecked: it could not be found out, or there was no need; Detail says why.
	NotChecked Status = "not checked"
)

// Finding is what a check has found out. It holds no secret.
type Finding struct {
	// Check names it, as the package's comment lists them.
	Check string `json:"check"`
	// Target is what was looked at: a server, a subject, a stream. It is empty where there is only one.
	Target string `json:"target,omitempty"`
	Status Status `json:"status"`
	// Detail is what was seen.
	Detail string `json:"detail,omitempty"`
	// Remedy is what helps, where something does.
	Remedy string `json:"remedy,omitempty"`
	// Took is for how long it was looked.
	Took time.Duration `json:"took,omitempty"`
}

// String is the finding on one line.
func (f Finding) String() string {
	text := strings.TrimSpace(fmt.Sprintf("%s: %s %s", f.Status, f.Check, f.Target))
	if f.Detail != "" {
		text += ": " + f.Detail
	}
	if f.Remedy != "" {
		text += " -> " + f.Remedy
	}
	return text
}

// The ends of a check. A detail of one line: joined errors have a line each.

func passed(detail string) Finding { return Finding{Status: Passed, Detail: detail} }

func unknown(reason string) Finding { return Finding{Status: NotChecked, Detail: reason} }

func failed(err error, remedy string) Finding {
	return Finding{Status: Failed, Detail: oneLine(err), Remedy: remedy}
}

// ended is passed without an error, and else failed.
func ended(err error, remedy string) Finding {
	if err != nil {
		return failed(err, remedy)
	}
	return passed("")
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// list is some of many names.
func list(names []string) string { return cmp.Or(fault.Few(names, ", ", 10), "nothing") }
