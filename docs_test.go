package nats_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

const docsModule = "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"

var readmes = []string{"README.md", "README.zh-CN.md"}

// TestDocsCompile compiles every Go block of the READMEs, of docs and of the package comment, all at once.
// A block is a program, declarations, or statements; to the latter two the imports are added, and
// statements stand in a function with the parameters of fragmentParameters. The sources exist in
// an overlay only, so that they belong to the module and nothing is written into it.
func TestDocsCompile(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	var blocks []docBlock
	for _, page := range append(pages, readmes...) {
		found := fencedBlocks(t, page, "go")
		require.True(t, len(found) > 0 || strings.HasPrefix(page, "docs"), page)
		for _, b := range found {
			formatted, err := format.Source([]byte(b.text))
			if assert.NoError(t, err, b) {
				assert.Equal(t, string(formatted), b.text, "%s: not as gofmt has it", b)
			}
		}
		blocks = append(blocks, found...)
	}
	found := packageCommentBlocks(t)
	require.NotEmpty(t, found, "doc.go")
	blocks = append(blocks, found...)
	for _, problem := range compileDocBlocks(t, blocks) {
		t.Error(problem)
	}
}

// The test above is worth nothing if it passes what does not compile.
func TestDocsCompileFindsMistakes(t *testing.T) {
	t.Parallel()
	problems := compileDocBlocks(t, []docBlock{
		{"a.md", 10, "err := client.Publish(ctx, \"a\", nil)\nif err != nil {\n\treturn err\n}\nclient.Nonsense()\n"},
		{"a.md", 20, "package main\n\nfunc main() { undefined1() }\n"},
		{"b.md", 30, "func f(c *nats.Client) error {\n\treturn c.Close(1)\n}\n"},
		{"b.md", 40, "sub, err := client.Subscribe(ctx, \"a\", nil)\n"},
		{"b.md", 50, "this is no Go\n"},
		{"b.md", 60, "return client.Flush(ctx)\n"},
	})
	text := strings.Join(problems, "\n")
	for _, want := range []string{"a.md:14:", "a.md:22:", "b.md:31:", "b.md:40:", "b.md:50:"} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "b.md:6", "the sound block")
}

// docBlock is a block of code and where its first line stands.
type docBlock struct {
	file string
	line int
	text string
}

func (b docBlock) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

// fencedBlocks returns the blocks of a language in a Markdown file.
func fencedBlocks(t *testing.T, file, language string) []docBlock {
	t.Helper()
	var blocks []docBlock
	var open *docBlock
	for i, line := range strings.Split(docText(t, file), "\n") {
		switch {
		case open == nil && line == "```"+language:
			open = &docBlock{file: file, line: i + 2}
		case open != nil && line == "```":
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	require.Nil(t, open, "%s: a block is not closed", file)
	return blocks
}

func docText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

// packageCommentBlocks returns the code of the package comment.
func packageCommentBlocks(t *testing.T) []docBlock {
	t.Helper()
	source := strings.Split(docText(t, "doc.go"), "\n")
	var blocks []docBlock
	for _, part := range packageComment(t).Content {
		code, ok := part.(*comment.Code)
		if !ok {
			continue
		}
		first, _, _ := strings.Cut(code.Text, "\n")
		line := slices.IndexFunc(source, func(s string) bool { return strings.HasSuffix(s, first) })
		blocks = append(blocks, docBlock{"doc.go", line + 1, code.Text})
	}
	return blocks
}

// packageComment parses the package comment with its links resolved.
func packageComment(t *testing.T) *comment.Doc {
	t.Helper()
	set := token.NewFileSet()
	var files []*ast.File
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(set, files, docsModule)
	require.NoError(t, err)
	return pkg.Parser().Parse(pkg.Doc)
}

// fragmentImports are what a fragment may use without importing it.
var fragmentImports = map[string]string{
	"doctor":    strconv.Quote(docsModule + "/doctor"),
	"jetstream": `"github.com/nats-io/nats.go/jetstream"`,
	"http":      `"net/http"`,
	"json":      `"encoding/json"`,
	"nats":      strconv.Quote(docsModule),
	"natsgo":    `natsgo "github.com/nats-io/nats.go"`,
	"natstest":  strconv.Quote(docsModule + "/natstest"),
	"slog":      `"log/slog"`,
	"strconv":   `"strconv"`,
	"tls":       `"crypto/tls"`,

	"context": `"context"`,
	"errors":  `"errors"`,
	"fmt":     `"fmt"`,
	"io":      `"io"`,
	"iter":    `"iter"`,
	"log":     `"log"`,
	"os":      `"os"`,
	"testing": `"testing"`,
	"time":    `"time"`,
}

// fragmentParameters are what statements may use without declaring it.
const fragmentParameters = "ctx context.Context, client *nats.Client, cfg *nats.Config, data []byte, handle, resize nats.Handler"

// source makes a Go file of the block. Its lines keep their numbers.
func (b docBlock) source(pkg string) string {
	here := fmt.Sprintf("//line %s:%d\n", b, 1) // the column
	if program, ok := strings.CutPrefix(b.text, "package main\n"); ok {
		return here + "package " + pkg + "\n" + program // no program, so that nothing is linked
	}
	head, body := "", here+b.text
	if file, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+b.text, 0); err != nil {
		head = "func _(" + fragmentParameters + ") error {\n{\n"
		body += "}\nreturn nil\n}\n"
	} else if len(file.Imports) > 0 {
		return fmt.Sprintf("package %s\n%s", pkg, body)
	}
	var imports []string
	for name, path := range fragmentImports {
		if regexp.MustCompile(`\b` + name + `\.`).MatchString(head + b.text) {
			imports = append(imports, path)
		}
	}
	slices.Sort(imports)
	return fmt.Sprintf("package %s\nimport (\n%s\n)\n%s%s", pkg, strings.Join(imports, "\n"), head, body)
}

// compileBlocks returns the compiler's complaints.
func compileDocBlocks(t *testing.T, blocks []docBlock) []string {
	t.Helper()
	root, err := os.Getwd()
	require.NoError(t, err)
	temp := t.TempDir()
	overlay := map[string]string{}
	var packages []string
	for i, b := range blocks {
		pkg := fmt.Sprintf("docs_block_%d", i)
		path := filepath.Join(temp, pkg+".go")
		require.NoError(t, os.WriteFile(path, []byte(b.source(pkg)), 0o600))
		overlay[filepath.Join(root, pkg, "block.go")] = path
		packages = append(packages, "./"+pkg)
	}
	replace, err := json.Marshal(map[string]any{"Replace": overlay})
	require.NoError(t, err)
	config := filepath.Join(temp, "overlay.json")
	require.NoError(t, os.WriteFile(config, replace, 0o600))

	args := []string{"build", "-overlay", config, "-gcflags=-e"}
	if isRaceTest() { // what the tests were built from is in the build cache
		args = append(args, "-race")
	}
	output, err := exec.Command("go", append(args, packages...)...).CombinedOutput()
	problems := problemLines(string(output))
	if err != nil && len(problems) == 0 {
		problems = []string{err.Error()}
	}
	return problems
}

// problemLines picks the compiler's lines out of what the go command prints.
func problemLines(output string) []string {
	var problems []string
	for line := range strings.SplitSeq(output, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "# ") {
			continue
		}
		// The compiler takes the name in a line directive for one in the folder of the file.
		if i := strings.LastIndex(line, "docs_block_"); i >= 0 {
			if _, rest, ok := strings.Cut(line[i:], "/"); ok {
				line = rest
			}
		}
		problems = append(problems, line)
	}
	return problems
}

func isRaceTest() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestReadmeYAML loads every YAML block as a configuration file. Files that it names need not
// exist here.
func TestReadmeYAML(t *testing.T) {
	noVariables(t)
	for _, readme := range readmes {
		for _, b := range fencedBlocks(t, readme, "yaml") {
			path := filepath.Join(t.TempDir(), "nats.yaml")
			writeFile(t, path, b.text)
			_, err := nats.LoadConfig(path)
			var several interface{ Unwrap() []error }
			if !errors.As(err, &several) {
				require.NoError(t, err, b)
				continue
			}
			require.ErrorAs(t, several.Unwrap()[1], &several) // behind the sentinel
			for _, one := range several.Unwrap() {
				if !errors.Is(one, fs.ErrNotExist) {
					t.Errorf("%s: %v", b, err)
				}
			}
		}
	}
}

var configRow = regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `(ISA_CLOUD_NATS_[A-Z_]+)` \\| (.*?) \\| (.+) \\|$")

// TestReadmeConfigTable compares the table of the configuration with Config itself.
func TestReadmeConfigTable(t *testing.T) {
	t.Parallel()
	type row struct{ variable, value string }
	for _, readme := range readmes {
		rows := map[string]row{}
		for _, m := range configRow.FindAllStringSubmatch(docText(t, readme), -1) {
			require.NotContains(t, rows, m[1], "%s: listed twice", readme)
			rows[m[1]] = row{m[2], m[3]}
		}
		keysOf(reflect.ValueOf(*nats.DefaultConfig()), "", func(key string, _ reflect.StructField, v reflect.Value) {
			r, ok := rows[key]
			if !assert.True(t, ok, "%s: the configuration table lacks %s", readme, key) {
				return
			}
			delete(rows, key)
			assert.Equal(t, "ISA_CLOUD_NATS_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_")), r.variable, readme)
			if key == "client_id" { // the program's name, in words
				assert.NotContains(t, r.value, "`", "%s: %s", readme, key)
				return
			}
			assert.True(t, saysValue(r.value, v.Interface()), "%s: the default of %s is %v, not %s", readme, key, v, r.value)
		})
		assert.Empty(t, rows, "%s: no such keys", readme)
	}
}

// saysValue tells whether a cell of the table says v. Empty texts are dashes.
func saysValue(cell string, v any) bool {
	text := strings.Trim(cell, "`")
	switch v := v.(type) {
	case time.Duration:
		d, err := time.ParseDuration(text)
		return err == nil && d == v
	case []string:
		return text == strings.Join(v, ",")
	case string:
		if v == "" {
			return cell == "-"
		}
		return text == v
	default:
		return text == fmt.Sprint(v)
	}
}

var errorRow = regexp.MustCompile("(?m)^\\| `(Err[A-Za-z]+)` \\|")

// TestReadmeErrorTable compares the tables of the errors with errors.go.
func TestReadmeErrorTable(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	require.NoError(t, err)
	var sentinels []string
	for _, decl := range file.Decls {
		if general, ok := decl.(*ast.GenDecl); ok && general.Tok == token.VAR {
			for _, spec := range general.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if name.IsExported() && strings.HasPrefix(name.Name, "Err") {
						sentinels = append(sentinels, name.Name)
					}
				}
			}
		}
	}
	for _, readme := range append([]string{"docs/errors.md"}, readmes...) {
		var rows []string
		for _, m := range errorRow.FindAllStringSubmatch(docText(t, readme), -1) {
			rows = append(rows, m[1])
		}
		assert.ElementsMatch(t, sentinels, rows, readme)
	}
}

// TestReadmesHaveTheSameParts keeps the translation from falling behind: its headings have the
// same levels, and its tables and blocks the same number of lines.
func TestReadmesHaveTheSameParts(t *testing.T) {
	t.Parallel()
	english, chinese := docOutline(t, readmes[0]), docOutline(t, readmes[1])
	require.Len(t, chinese, len(english), "number of sections")
	for i := range english {
		assert.Equal(t, english[i].shape, chinese[i].shape, "%q and %q", english[i].heading, chinese[i].heading)
	}
}

type docSection struct {
	heading string
	shape   string // the level, and the numbers of blocks and of table rows
}

func docOutline(t *testing.T, file string) []docSection {
	t.Helper()
	var sections []docSection
	var level, blocks, rows int
	var heading string
	end := func() {
		sections = append(sections, docSection{heading, fmt.Sprintf("level %d, %d blocks, %d rows", level, blocks, rows)})
	}
	inBlock := false
	for line := range strings.SplitSeq(docText(t, file), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			if inBlock = !inBlock; inBlock {
				blocks++
			}
		case inBlock:
		case strings.HasPrefix(line, "#"):
			end()
			heading, level, blocks, rows = line, strings.Count(strings.Fields(line)[0], "#"), 0, 0
		case strings.HasPrefix(line, "|"):
			rows++
		}
	}
	end()
	return sections
}

// TestDocsLinks finds links of the package comment that lead nowhere: go/doc leaves them as text,
// whose brackets are escaped in Markdown.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	text := string((&comment.Printer{}).Markdown(packageComment(t)))
	assert.NotRegexp(t, `\\\[[A-Za-z.]+\]`, text)
	assert.Greater(t, strings.Count(text, "]("), 30)
}

var packageRow = regexp.MustCompile("(?m)^\\| `(\\.|doctor|natstest|internal/[a-z/]+)` \\| .+ \\|$")

// TestDocsMap compares the map of CONTRIBUTING.md with the packages, and the list in the doc.go of
// each engine with its files. The examples have an index of their own.
func TestDocsMap(t *testing.T) {
	t.Parallel()
	files := map[string][]string{}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		if err != nil || entry.IsDir() && path != "." && (path == "examples" || name == "testdata" || strings.HasPrefix(name, ".")) {
			return cmp.Or(err, fs.SkipDir)
		}
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			dir := filepath.ToSlash(filepath.Dir(path))
			files[dir] = append(files[dir], name)
		}
		return nil
	}))
	var rows []string
	for _, m := range packageRow.FindAllStringSubmatch(docText(t, "CONTRIBUTING.md"), -1) {
		rows = append(rows, m[1])
	}
	assert.ElementsMatch(t, slices.Collect(maps.Keys(files)), rows, "the map of CONTRIBUTING.md")
	floors := docText(t, ".golangci.yml")
	for dir, names := range files {
		if !strings.HasPrefix(dir, "internal/") || !assert.Contains(t, names, "doc.go", dir) {
			continue
		}
		assert.True(t, strings.HasPrefix(dir, "internal/faults") || strings.Contains(floors, dir), "%s has no floor in .golangci.yml", dir)
		var listed []string
		for _, m := range listedFile.FindAllStringSubmatch(docText(t, filepath.Join(dir, "doc.go")), -1) {
			listed = append(listed, m[1])
		}
		assert.ElementsMatch(t, names, append(listed, "doc.go"), "the list of %s/doc.go", dir)
	}
}

var listedFile = regexp.MustCompile(`(?m)^//   - ([a-z_]+\.go): `)
