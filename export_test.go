package nats

// What black-box tests may see of the inside.
var SubjectFault = subjectFault

// Backoff is the pause before each round of reconnects.
var Backoff = backoff
