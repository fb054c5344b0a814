package subject

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What a token of a transform's destination takes from the source: one of its wildcards, or something of
// them that does not tell which subject it was.
var (
	wildcardOf  = regexp.MustCompile(`^(?:\$|\{\{\s*[wW]ildcard\s*\(\s*)(\d+)(?:\s*\)\s*\}\})?$`)
	somethingOf = regexp.MustCompile(`^\{\{\s*([pP]artition|[rR]andom)\s*\(.*\)\s*\}\}$`)
)

// Undo returns the subject that a transform from source to destination has made subject of. It cannot
// when the destination does not tell all that was in the source's wildcards, or when none of it fits.
func Undo(source, destination, subject string) (before string, ok bool) {
	from, to, tokens := strings.Split(cmp.Or(source, ">"), "."), strings.Split(destination, "."), strings.Split(subject, ".")
	wildcards := make(map[int]string)
	var rest []string
	for i, token := range to {
		if token == ">" {
			if rest = tokens[min(i, len(tokens)):]; len(rest) == 0 {
				return "", false
			}
			break
		}
		if i >= len(tokens) {
			return "", false
		}
		if match := wildcardOf.FindStringSubmatch(token); match != nil {
			n, _ := strconv.Atoi(match[1])
			if taken, known := wildcards[n]; known && taken != tokens[i] {
				return "", false
			}
			wildcards[n] = tokens[i]
		} else if token != tokens[i] && !somethingOf.MatchString(token) {
			return "", false
		}
	}
	if rest == nil && len(tokens) != len(to) {
		return "", false
	}
	n := 0
	for i, token := range from {
		switch token {
		case "*":
			n++
			taken, known := wildcards[n]
			if !known {
				return "", false
			}
			from[i] = taken
		case ">":
			return strings.Join(slices.Concat(from[:i], rest), "."), rest != nil
		}
	}
	return strings.Join(from, "."), true
}
