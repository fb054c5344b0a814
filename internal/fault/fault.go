package fault

import (
	"fmt"
	"slices"
	"strings"
)

// Error says which operation failed on what. Is and As see both the sentinel and the cause.
type Error struct {
	Op     string // "publish"
	Target string // the subject, stream, bucket or key; may be empty
	Kind   error  // a sentinel; may be nil
	Cause  error  // upstream's error or a reason; may be nil
}

func (e *Error) Error() string {
	text := e.Op
	if e.Target != "" {
		text = strings.TrimSpace(text + fmt.Sprintf(" %q", cut(e.Target)))
	}
	if e.Kind != nil {
		text += ": " + e.Kind.Error()
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 2)
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// Joined is errors.Join on one line.
type Joined []error //nolint:errname // it is written as the slice that it is

func (j Joined) Error() string {
	texts := make([]string, 0, len(j))
	for _, err := range j {
		texts = append(texts, err.Error())
	}
	return Few(texts, "; ", mostJoined)
}

// mostJoined is how many causes a text lists: more than a cluster has servers.
const mostJoined = 50

// Few lists at most so many of the texts, and says how many more there are.
func Few(texts []string, separator string, most int) string {
	if more := len(texts) - most; more > 0 {
		texts = append(slices.Clone(texts[:most]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, separator)
}

func (j Joined) Unwrap() []error { return j }

// Path is the target of an error about a part of something, such as a key of a bucket, or about all of it where that is
// empty.
func Path(whole, part string) string {
	if part == "" {
		return whole
	}
	return whole + "/" + part
}

// Wrap gives err its operation, its target and the sentinel that fits. It returns nil for nil and
// leaves an error alone that has an operation already.
func Wrap(op, target string, err error) error {
	if err == nil {
		return nil
	}
	if wrapped, ok := err.(*Error); ok { //nolint:errorlint // only the outermost wrapping counts
		if wrapped.Op == "" {
			return &Error{Op: op, Target: target, Kind: wrapped.Kind, Cause: wrapped.Cause}
		}
		return wrapped
	}
	return &Error{Op: op, Target: target, Kind: Kind(err), Cause: err}
}

// New builds an error of the library's own making.
func New(op, target string, kind error, reason string, args ...any) error {
	e := &Error{Op: op, Target: target, Kind: kind}
	if reason != "" {
		for i, arg := range args {
			if name, ok := arg.(string); ok {
				args[i] = cut(name)
			}
		}
		e.Cause = fmt.Errorf(reason, args...)
	}
	return e
}

// cut shortens a name that would fill a page: 4 KB of user input may stand in for a subject.
func cut(name string) string {
	const most, head, tail = 300, 100, 20
	if len(name) <= most {
		return name
	}
	ends := strings.ToValidUTF8(name[:head], "") + "..." + strings.ToValidUTF8(name[len(name)-tail:], "")
	return fmt.Sprintf("%s (%d bytes)", ends, len(name))
}
