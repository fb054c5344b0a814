package nats

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// environment applies the variables and refuses those that are named like one but are none.
func (l *configLoader) environment(environ []string) {
	fields := make(map[string]configField, len(l.fields))
	known := []string{strings.TrimPrefix(configVariable, envPrefix)}
	for _, field := range l.fields {
		fields[field.variable()] = field
		known = append(known, strings.TrimPrefix(field.variable(), envPrefix))
	}
	slices.Sort(environ) // so that the same mistakes give the same text
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || text == "" || name == configVariable || isServiceLink(rest, text) {
			continue
		}
		if field, ok := fields[name]; ok {
			l.variable(field, name, text)
			continue
		}
		meant := nearest(rest, known)
		if meant != "" {
			meant = envPrefix + meant
		}
		l.report(name, "unknown variable%s", didYouMean(meant))
	}
}

func (l *configLoader) variable(field configField, name, text string) {
	texts := []string{text}
	if field.value.Kind() == reflect.Slice {
		if texts = splitList(text); len(texts) == 0 {
			return
		}
	}
	if err := field.set(texts...); err != nil {
		l.report(name, "%w", err)
		return
	}
	l.set[field.key] = name
	for i := range texts {
		delete(l.set, fmt.Sprintf("%s[%d]", field.key, i)) // the file's elements are gone
	}
}

func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// isServiceLink recognises the variables that Kubernetes and Docker links set in every container
// for a service called isa-cloud-nats or isa-cloud-nats-something. Refusing them would keep every
// pod of the namespace from starting; GRPC_PORT=tcp://10.0.0.1:50056 would set our grpc_port.
func isServiceLink(name, value string) bool {
	if strings.HasSuffix(name, "SERVICE_HOST") || strings.Contains(name, "SERVICE_PORT") {
		return true
	}
	return strings.HasSuffix(name, "PORT") && strings.Contains(value, "://") || serviceLinkPort.MatchString(name)
}

var serviceLinkPort = regexp.MustCompile(`(^|_)PORT_[0-9]+_(TCP|UDP|SCTP)(_|$)`)
