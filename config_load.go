package nats

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// configVariable names the configuration file; it is no key of the file.
const configVariable = envPrefix + "CONFIG"

// LoadConfig returns the defaults, overridden by the file at path, overridden by the environment,
// and validated. With an empty path the file is $ISA_CLOUD_NATS_CONFIG, or else the first that
// exists of ./configs/sdk/nats.yaml, ../configs/sdk/nats.yaml, /etc/isa_cloud/nats.yaml and
// ./nats.yaml, or else none. A file that was asked for and does not exist is an error.
//
// Every key of the file has its environment variable, see [Config]. In a variable a list is split
// at commas, a boolean is what [strconv.ParseBool] takes, and an empty variable is not set.
// A null or missing key of the file leaves the default, and a zero or empty value means it.
//
// Unknown keys and variables, keys given twice, wrong values and everything that
// [Config.Validate] finds are reported together in one error, an [ErrInvalidConfig]. Each is named
// by its file, line and key or by its variable; secrets are never quoted.
func LoadConfig(path string) (*Config, error) {
	c := Config{JetStreamEnabled: true}
	l := newConfigLoader(&c)
	if path, from := findConfig(path); path != "" {
		l.file(path, from)
	}
	l.environment(os.Environ())
	// Last, because a default may depend on other keys, and a zero that is given means the default.
	c = c.withDefaults()

	for _, p := range c.problems() {
		l.problems = append(l.problems, problem{l.whereSet(p.where), p.reason})
	}
	if err := invalidConfig(l.problems); err != nil {
		return nil, err
	}
	return &c, nil
}

// findConfig returns the file to read and, if a variable named it, that variable.
func findConfig(path string) (file, from string) {
	if path != "" {
		return path, ""
	}
	if path := os.Getenv(configVariable); path != "" {
		return path, configVariable
	}
	for _, path := range []string{
		"configs/sdk/nats.yaml", "../configs/sdk/nats.yaml", "/etc/isa_cloud/nats.yaml", "nats.yaml",
	} {
		// A file that exists but may not be looked at is reported, not passed over.
		_, err := os.Stat(path)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return path, ""
		}
	}
	return "", ""
}

// configLoader fills in a Config from texts and remembers where each key was set.
type configLoader struct {
	fields   []configField
	set      map[string]string // key, or list element as "urls[0]", to where it was set last
	problems []problem
}

func newConfigLoader(c *Config) *configLoader {
	return &configLoader{
		fields: leafFields(reflect.ValueOf(c).Elem(), ""),
		set:    map[string]string{},
	}
}

func (l *configLoader) report(where, reason string, args ...any) {
	l.problems = append(l.problems, problem{where, fmt.Errorf(reason, args...)})
}

// whereSet turns the key of a problem into the place where a person can mend it.
func (l *configLoader) whereSet(key string) string {
	if where, ok := l.set[key]; ok {
		return where
	}
	list, index, isElement := strings.Cut(key, "[")
	if where, ok := l.set[list]; ok && isElement {
		return where + "[" + index
	}
	return key
}

func (l *configLoader) file(path, from string) {
	data, err := os.ReadFile(path)
	if err != nil {
		where := "configuration file"
		if from != "" {
			where = from
		}
		l.report(where, "%w", err)
		return
	}
	l.document(path, data)
}

func (l *configLoader) document(path string, data []byte) {
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&document)
	if err == nil {
		err = decoder.Decode(&second)
	}
	switch {
	case err == nil:
		l.report(place(path, second.Line), "expected one document, found a second")
	case !errors.Is(err, io.EOF):
		l.report(syntaxProblem(path, err))
	case len(document.Content) > 0:
		(&configFile{l, path, map[string]int{}}).mapping(document.Content[0], "")
	}
}

func place(path string, line int) string { return fmt.Sprintf("%s:%d", path, line) }

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

// configFile walks one file's nodes.
type configFile struct {
	*configLoader
	path string
	seen map[string]int // key to line
}

// mapping sets the fields whose keys begin with prefix.
func (f *configFile) mapping(node *yaml.Node, prefix string) {
	node = target(node)
	if isNull(node) {
		return
	}
	if node.Kind != yaml.MappingNode {
		where := place(f.path, node.Line)
		if prefix != "" {
			where += ": " + strings.TrimSuffix(prefix, ".")
		}
		f.report(where, "expected keys with their values, got %s", kindOf(node))
		return
	}
	for pair := range slices.Chunk(node.Content, 2) {
		f.pair(pair[0], pair[1], prefix)
	}
}

func (f *configFile) pair(name, value *yaml.Node, prefix string) {
	key, where := prefix+name.Value, place(f.path, name.Line)
	if first, ok := f.seen[key]; ok {
		f.report(where+": "+serverurl.Redact(key), "given twice, first in line %d", first)
		return
	}
	f.seen[key] = name.Line

	if i := slices.IndexFunc(f.fields, func(field configField) bool { return field.key == key }); i >= 0 {
		f.value(f.fields[i], value, where+": "+key)
	} else if f.isBlock(key) {
		f.mapping(value, key+".")
	} else {
		f.unknownKey(key, where)
	}
}

func (f *configFile) isBlock(key string) bool {
	return slices.ContainsFunc(f.fields, func(field configField) bool {
		return strings.HasPrefix(field.key, key+".")
	})
}

func (f *configFile) unknownKey(key, where string) {
	known := make([]string, len(f.fields))
	for i, field := range f.fields {
		known[i] = field.key
	}
	f.report(where, "unknown key %q%s", serverurl.Redact(key), didYouMean(nearest(key, known)))
}

func didYouMean(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", name)
}

// value sets a field from its node. A null leaves what is there.
func (f *configFile) value(field configField, node *yaml.Node, where string) {
	node = target(node)
	if isNull(node) {
		if node.Anchor != "" {
			f.report(where, "expected a value; one that begins with & must be quoted")
		}
		return
	}
	texts := []string{node.Value}
	if field.value.Kind() == reflect.Slice {
		if node.Kind != yaml.SequenceNode {
			f.report(where, "expected a list, got %s", kindOf(node))
			return
		}
		texts = f.elements(field, node)
	} else if !isPlain(node) {
		f.report(where, "expected one plain value, got %s", kindOf(node))
		return
	}
	if err := field.set(texts...); err != nil {
		f.report(where, "%w", err)
		return
	}
	f.set[field.key] = where
}

func (f *configFile) elements(field configField, list *yaml.Node) []string {
	var texts []string
	for i, node := range list.Content {
		key := fmt.Sprintf("%s[%d]", field.key, i)
		where := place(f.path, node.Line) + ": " + key
		node = target(node)
		if !isPlain(node) {
			f.report(where, "expected one plain value, got %s", kindOf(node))
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
