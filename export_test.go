package nats

// What black-box tests may see of the inside.
var SubjectFault = subjectFault
