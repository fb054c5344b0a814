package nats_test

import (
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
	"os"
	"os/exec"
	"path"
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

// docPages returns the pages for readers in a language: English or, with a folder of zh, Chinese.
func docPages(t *testing.T, language string) []string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join("docs", language, "*.md"))
	require.NoError(t, err)
	return append(pages, map[string]string{"": "README.md", "zh": "README.zh-CN.md"}[language])
}

// TestDocsCompile compiles every Go block of the README, of docs and of the package comment, all at once.
// A block is a program, declarations, or statements; to the latter two the imports are added, and
// statements stand in a function with the parameters of fragmentParameters. The sources exist in
// an overlay only, so that they belong to the module and nothing is written into it. The translations have the
// same code: see TestDocsTranslations.
func TestDocsCompile(t *testing.T) {
	t.Parallel()
	blocks := packageCommentBlocks(t)
	require.NotEmpty(t, blocks, "doc.go")
	for _, language := range []string{"", "zh"} {
		for _, page := range docPages(t, language) {
			for _, b := range fencedBlocks(t, page, "go") {
				formatted, err := format.Source([]byte(b.text))
				if assert.NoError(t, err, b) {
					assert.Equal(t, string(formatted), b.text, "%s: not as gofmt has it", b)
				}
				if language == "" {
					blocks = append(blocks, b)
				}
			}
		}
	}
	modules := map[string][]docBlock{}
	for _, b := range blocks {
		module := "."
		if strings.Contains(b.text, "otelnats.") {
			module = "otelnats"
		}
		modules[module] = append(modules[module], b)
	}
	for module, blocks := range modules {
		for _, problem := range compileDocBlocks(t, module, blocks) {
			t.Error(problem)
		}
	}
}

// The test above is worth nothing if it passes what does not compile.
func TestDocsCompileFindsMistakes(t *testing.T) {
	t.Parallel()
	problems := compileDocBlocks(t, ".", []docBlock{
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
	pkg, _ := docPackage(t, ".")
	return pkg.Parser().Parse(pkg.Doc)
}

// docPackage returns what go doc has of a package.
func docPackage(t *testing.T, dir string) (*doc.Package, *token.FileSet) {
	t.Helper()
	set := token.NewFileSet()
	var files []*ast.File
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(set, files, path.Join(docsModule, dir))
	require.NoError(t, err)
	return pkg, set
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
	"otelnats":  strconv.Quote(docsModule + "/otelnats"),
	"expvar":    `"expvar"`,
	"signal":    `"os/signal"`,
	"slices":    `"slices"`,
	"slog":      `"log/slog"`,
	"strconv":   `"strconv"`,
	"syscall":   `"syscall"`,
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

// compileDocBlocks returns the compiler's complaints of blocks in a module.
func compileDocBlocks(t *testing.T, module string, blocks []docBlock) []string {
	t.Helper()
	root, err := filepath.Abs(module)
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

	args := []string{"build", "-C", module, "-overlay", config, "-gcflags=-e"}
	if isRaceTest() { // what the tests were built from is in the build cache
		args = append(args, "-race")
	}
	output, err := exec.Command("go", append(args, packages...)...).CombinedOutput()
	if err == nil { // it may have told what it downloads
		return nil
	}
	return append(problemLines(string(output)), err.Error())
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

// TestDocsYAML loads every YAML block as a configuration file. Files that it names need not
// exist here.
func TestDocsYAML(t *testing.T) {
	noVariables(t)
	for _, page := range docPages(t, "") {
		for _, b := range fencedBlocks(t, page, "yaml") {
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

// TestDocsConfigTable compares the table of the configuration with Config itself.
func TestDocsConfigTable(t *testing.T) {
	t.Parallel()
	type row struct{ variable, value string }
	for _, page := range []string{"docs/configuration.md", "docs/zh/configuration.md"} {
		rows := map[string]row{}
		for _, m := range configRow.FindAllStringSubmatch(docText(t, page), -1) {
			require.NotContains(t, rows, m[1], "%s: listed twice", page)
			rows[m[1]] = row{m[2], m[3]}
		}
		keysOf(reflect.ValueOf(*nats.DefaultConfig()), "", func(key string, _ reflect.StructField, v reflect.Value) {
			r, ok := rows[key]
			if !assert.True(t, ok, "%s: the configuration table lacks %s", page, key) {
				return
			}
			delete(rows, key)
			assert.Equal(t, "ISA_CLOUD_NATS_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_")), r.variable, page)
			if key == "client_id" { // the program's name, in words
				assert.NotContains(t, r.value, "`", "%s: %s", page, key)
				return
			}
			assert.True(t, saysValue(r.value, v.Interface()), "%s: the default of %s is %v, not %s", page, key, v, r.value)
		})
		assert.Empty(t, rows, "%s: no such keys", page)
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

// TestDocsErrorTable compares the tables of the errors with errors.go. Those of their kinds are compared by
// TestErrorsPage.
func TestDocsErrorTable(t *testing.T) {
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
	for _, page := range []string{"docs/errors.md", "docs/zh/errors.md"} {
		var rows []string
		text, _, _ := strings.Cut(docText(t, page), "<!-- begin")
		for _, m := range errorRow.FindAllStringSubmatch(text, -1) {
			rows = append(rows, m[1])
		}
		assert.ElementsMatch(t, sentinels, rows, page)
	}
}
