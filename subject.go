package nats

import (
	natsgo "github.com/nats-io/nats.go"

	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

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
