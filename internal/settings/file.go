package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

func (l *Loaded) file(path, from string) {
	data, err := os.ReadFile(path)
	if err != nil {
		where := "configuration file"
		if from != "" {
			where = from
		}
		l.problems.Add(where, "%w", err)
		return
	}
	l.document(path, data)
}

func (l *Loaded) document(path string, data []byte) {
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&document)
	if err == nil {
		err = decoder.Decode(&second)
	}
	switch {
	case err == nil:
		l.problems.Add(place(path, second.Line), "expected one document, found a second")
	case !errors.Is(err, io.EOF):
		l.problems.Add(syntaxProblem(path, err))
	case len(document.Content) > 0:
		(&file{l, path, map[string]int{}}).mapping(document.Content[0], "")
	}
}

// Decode fills in the struct that dst points to from a part of another file, which decode knows.
func Decode(dst any, decode func(any) error) error { return decode(newLoaded(dst)) }

// UnmarshalYAML is what decode calls.
func (l *Loaded) UnmarshalYAML(node *yaml.Node) error {
	(&file{l, "", map[string]int{}}).mapping(node, "")
	return l.Err()
}

func place(path string, line int) string {
	if path == "" {
		return fmt.Sprintf("line %d", line)
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// syntaxProblem splits the parser's error into place and reason.
func syntaxProblem(path string, err error) (where, reason string, arg any) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		path = place(path, line)
		_, text, _ = strings.Cut(text, ": ")
	}
	if strings.HasPrefix(text, "unknown anchor") {
		// The parser quotes the anchor, which may be a password that begins with a star.
		text = "unknown anchor; a value that begins with * must be quoted"
	}
	return path, "%s", text
}

// file walks one file's nodes.
type file struct {
	*Loaded
	path string
	seen map[string]int // key to line
}

// mapping sets the fields whose keys begin with prefix.
func (f *file) mapping(node *yaml.Node, prefix string) {
	node = target(node)
	if isNull(node) {
		return
	}
	if node.Kind != yaml.MappingNode {
		where := place(f.path, node.Line)
		if prefix != "" {
			where += ": " + strings.TrimSuffix(prefix, ".")
		}
		f.problems.Add(where, "expected keys with their values, got %s", kindOf(node))
		return
	}
	for pair := range slices.Chunk(node.Content, 2) {
		f.pair(pair[0], pair[1], prefix)
	}
}

func (f *file) pair(name, value *yaml.Node, prefix string) {
	key, where := prefix+name.Value, place(f.path, name.Line)
	if first, ok := f.seen[key]; ok {
		f.problems.Add(where+": "+serverurl.Redact(key), "given twice, first in line %d", first)
		return
	}
	f.seen[key] = name.Line

	if i := f.find(key); i >= 0 {
		f.value(f.settings[i], value, where+": "+key)
	} else if f.isBlock(key) {
		f.mapping(value, key+".")
	} else {
		f.unknownKey(key, where, target(value))
	}
}

func (f *file) find(key string) int {
	return slices.IndexFunc(f.settings, func(s setting) bool { return s.key() == key })
}

func (f *file) isBlock(key string) bool {
	return slices.ContainsFunc(f.settings, func(s setting) bool {
		return strings.HasPrefix(s.key(), key+".")
	})
}

func (f *file) unknownKey(key, where string, value *yaml.Node) {
	known := make([]string, len(f.settings))
	for i, s := range f.settings {
		known[i] = s.key()
	}
	remedy := hint(key, known)
	if f.wraps(value) {
		remedy = ": its keys stand at the top level, in no block"
	}
	f.problems.Add(where, "unknown key %q%s", serverurl.Redact(key), remedy)
}

// wraps tells whether keys that are known at the top level stand within a node.
func (f *file) wraps(node *yaml.Node) bool {
	if node.Kind != yaml.MappingNode {
		return false
	}
	for pair := range slices.Chunk(node.Content, 2) {
		if f.find(pair[0].Value) >= 0 || f.isBlock(pair[0].Value) || f.wraps(pair[1]) {
			return true
		}
	}
	return false
}

// value sets a field from its node. A null leaves what is there.
func (f *file) value(s setting, node *yaml.Node, where string) {
	node = target(node)
	if isNull(node) {
		if node.Anchor != "" {
			f.problems.Add(where, "expected a value; one that begins with & must be quoted")
		} else if s.secret() == secretValue && node.Value != "" {
			f.problems.Add(where, "expected a secret; one that is called null or ~ must be quoted")
		}
		return
	}
	texts := []string{strings.TrimRight(node.Value, "\r\n")} // which block texts end in
	if s.value.Kind() == reflect.Slice {
		if node.Kind != yaml.SequenceNode {
			f.problems.Add(where, "expected a list, got %s", kindOf(node))
			return
		}
		texts = f.elements(s, node)
	} else if !isPlain(node) {
		f.problems.Add(where, "expected one plain value, got %s", kindOf(node))
		return
	}
	if err := s.set(texts...); err != nil {
		f.problems.Add(where, "%w", err)
		return
	}
	f.set[s.key()] = where
}

func (f *file) elements(s setting, list *yaml.Node) []string {
	var texts []string
	for i, node := range list.Content {
		key := fmt.Sprintf("%s[%d]", s.key(), i)
		where := place(f.path, node.Line) + ": " + key
		node = target(node)
		if !isPlain(node) {
			f.problems.Add(where, "expected one plain value, got %s", kindOf(node))
			continue
		}
		f.set[key] = where
		texts = append(texts, node.Value)
	}
	return texts
}

// target follows an alias to the node that its anchor names.
func target(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.ShortTag() == "!!null" }

// isPlain holds for a scalar that means its own text: an unquoted password of digits is those
// digits, but one tagged !!binary or !secret asks for something that is not done here.
func isPlain(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && slices.Contains(
		[]string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}, node.ShortTag())
}

func kindOf(node *yaml.Node) string {
	switch {
	case isNull(node):
		return "nothing"
	case node.Kind == yaml.MappingNode:
		return "keys"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case isPlain(node):
		return "one plain value"
	default:
		// The tag is not named: it may be a password.
		return "a tag; a value that begins with ! must be quoted"
	}
}
