package settings

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Contradictions lists the settings of which only one may be used, but for the first.
func Contradictions(plain any) Problems {
	var all []setting
	for s := range leaves(reflect.ValueOf(plain), "") {
		if !s.value.IsZero() {
			all = append(all, s)
		}
	}
	// URLs come last: one that holds a user beside a token is the odd one.
	slices.SortStableFunc(all, func(a, b setting) int { return cmp.Compare(len(a.urls()), len(b.urls())) })
	var found Problems
	for i, s := range all {
		for _, first := range all[:i] {
			if reason := s.contradicts(first); reason != "" {
				found.Add(s.chooser(), "%s", reason)
				break
			}
		}
	}
	return found
}

// contradicts tells why a setting cannot be used beside another one, "" when it can.
func (s setting) contradicts(other setting) string {
	choice, way, _ := strings.Cut(s.way(), ":")
	otherChoice, otherWay, _ := strings.Cut(other.way(), ":")
	switch {
	case s.key() == other.key()+"_file", s.key()+"_file" == other.key():
		return "excludes " + other.key()
	case choice == otherChoice && way != otherWay:
		return fmt.Sprintf("must be the only %s, but %s is set too", choice, other.chooser())
	}
	return ""
}

// way is the choice and the way that a setting stands for, as its tag says, "authentication:token". URLs are a
// way only when one holds a user.
func (s setting) way() string {
	if s.urls() != nil && s.chooser() == s.key() {
		return ""
	}
	return s.tag.Get("choice")
}

// chooser is the key that makes the choice: of URLs, that of the first with a user.
func (s setting) chooser() string {
	if i := slices.IndexFunc(s.urls(), hasUser); i >= 0 {
		return fmt.Sprintf("%s[%d]", s.key(), i)
	}
	return s.key()
}

func hasUser(raw string) bool { return strings.Contains(raw, "@") }

// urls is the value of a list.
func (s setting) urls() []string {
	urls, _ := s.value.Interface().([]string)
	return urls
}

// takeBack removes a value, but of URLs only the users.
func (s setting) takeBack() {
	if s.urls() == nil {
		s.value.SetZero()
	}
	for i, raw := range s.urls() {
		if u, err := serverurl.Parse(raw, strings.HasPrefix(serverurl.Normal(s.urls()[0]), "ws")); err == nil && hasUser(raw) {
			u.User = nil
			s.urls()[i] = u.String()
		}
	}
}
