package settings

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// environment applies the variables and refuses those that are named like one but are none. Where two keys
// exclude each other, that of the environment wins over that of the file.
func (l *Loaded) environment(environ []string) {
	file := maps.Clone(l.set)
	settings := make(map[string]setting, len(l.settings))
	known := []string{fileVariable}
	for _, s := range l.settings {
		settings[s.variable()] = s
		known = append(known, s.variable())
	}
	slices.Sort(environ) // so that the same mistakes give the same text
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		text = strings.TrimSpace(text) // a line feed comes with what a shell or a mounted secret put in
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || text == "" || name == fileVariable || isServiceLink(rest, text) {
			continue
		}
		if s, ok := settings[name]; ok {
			l.variable(s, name, text)
		} else {
			l.problems.Add(name, "unknown variable%s", hint(name, known))
		}
	}
	for _, winner := range l.settings {
		if l.set[winner.key()] == file[winner.key()] {
			continue // no variable set it
		}
		for _, s := range l.settings {
			if file[s.key()] != "" && l.set[s.key()] == file[s.key()] && s.contradicts(winner) != "" {
				s.takeBack()
			}
		}
	}
}

func (l *Loaded) variable(s setting, name, text string) {
	texts := []string{text}
	if s.value.Kind() == reflect.Slice {
		if texts = splitList(text); len(texts) == 0 {
			return
		}
	}
	if err := s.set(texts...); err != nil {
		l.problems.Add(name, "%w", err)
		return
	}
	l.set[s.key()] = name
	for i := range texts {
		delete(l.set, fmt.Sprintf("%s[%d]", s.key(), i)) // the file's elements are gone
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
