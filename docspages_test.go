package nats_test

import (
	"cmp"
	"go/doc/comment"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocsTranslations keeps the translations from falling behind: their headings have the same levels, their tables
// the same number of rows, and their blocks the same code but for the comments.
func TestDocsTranslations(t *testing.T) {
	t.Parallel()
	for _, chinese := range docPages(t, "zh") {
		english := filepath.Join("docs", filepath.Base(chinese))
		switch filepath.Base(chinese) {
		case "README.zh-CN.md":
			english = "README.md"
		case "glossary.md", "errors.md": // nothing to compare with, and a part only
			continue
		}
		want, have := docOutline(t, english), docOutline(t, chinese)
		if !assert.Len(t, have, len(want), "%s: number of sections", chinese) {
			continue
		}
		for i := range want {
			assert.Equal(t, want[i].level, have[i].level, "%s: %q and %q", chinese, want[i].heading, have[i].heading)
			assert.Equal(t, want[i].rows, have[i].rows, "%s: rows under %q and %q", chinese, want[i].heading, have[i].heading)
			assert.Equal(t, want[i].code, have[i].code, "%s: blocks under %q and %q", chinese, want[i].heading, have[i].heading)
		}
	}
}

// TestDocsFirstPageIsShort: what does not belong into the first hour has a page of its own.
func TestDocsFirstPageIsShort(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"README.md", "README.zh-CN.md"} {
		assert.LessOrEqual(t, len(docText(t, page)), 10<<10, page)
	}
}

type docSection struct {
	heading     string
	level, rows int
	code        string
}

var (
	codeComment = regexp.MustCompile(`(^|\s+)(//|#)( .*)?$`)
	diagramText = regexp.MustCompile(`(: | as |\b(alt|else) ).*`)
)

// docOutline returns the sections of a page. Of diagrams it has the lines, and not what they say.
func docOutline(t *testing.T, file string) []docSection {
	t.Helper()
	var sections []docSection
	var at docSection
	block := ""
	for line := range strings.SplitSeq(docText(t, file), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && block == "":
			block = cmp.Or(fence, "text")
			at.code += line + "\n"
		case isFence:
			block = ""
		case block == "mermaid":
			at.code += diagramText.ReplaceAllString(line, "") + "\n"
		case block != "":
			if code := strings.TrimSpace(codeComment.ReplaceAllString(line, "")); code != "" {
				at.code += strings.Join(strings.Fields(code), " ") + "\n"
			}
		case strings.HasPrefix(line, "#"):
			sections = append(sections, at)
			at = docSection{heading: line, level: strings.Count(strings.Fields(line)[0], "#")}
		case strings.HasPrefix(line, "|"):
			at.rows++
		}
	}
	return append(sections, at)
}

// prose returns a page without its blocks of code, and code only them and what is in backquotes.
func prose(text string) string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
}

func code(text string) string {
	return strings.Join(regexp.MustCompile("(?ms)^```.*?^```$|`[^`]+`").FindAllString(text, -1), "\n")
}

var pageLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestDocsPageLinks follows every link from page to page, and to a heading.
func TestDocsPageLinks(t *testing.T) {
	t.Parallel()
	pages := append(docPages(t, ""), docPages(t, "zh")...)
	for _, page := range append(pages, "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md", "examples/orders/README.md") {
		for _, m := range pageLink.FindAllStringSubmatch(prose(docText(t, page)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
			}
			if _, err := os.Stat(target); !assert.NoError(t, err, "%s: %s", page, m[1]) {
				continue
			}
			if anchor != "" {
				assert.Contains(t, anchors(t, target), anchor, "%s: %s", page, m[1])
			}
		}
	}
}

// anchors returns those that GitHub gives to the headings of a page.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(prose(docText(t, page)), -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		if slices.Contains(all, slug) {
			slug += "-1"
		}
		all = append(all, slug)
	}
	return all
}

// TestDocsNameEveryCall finds exported functions and methods that no page names.
func TestDocsNameEveryCall(t *testing.T) {
	t.Parallel()
	excused := []string{
		"Error", "Is", "Format", "GoString", "GobEncode", "LogValue", "MarshalJSON", "MarshalText", "MarshalYAML", "UnmarshalYAML",
	}
	require.LessOrEqual(t, len(excused), 10)
	var pages strings.Builder
	for _, page := range docPages(t, "") {
		pages.WriteString(code(docText(t, page)))
	}
	root, _ := docPackage(t, ".")
	functions := slices.Clone(root.Funcs)
	for _, typ := range root.Types {
		functions = slices.Concat(functions, typ.Funcs, typ.Methods)
	}
	for _, f := range functions {
		if !slices.Contains(excused, f.Name) {
			named, err := regexp.MatchString("[`.]"+f.Name+"\\b", pages.String())
			assert.True(t, named && err == nil, "%s %s is on no page", f.Recv, f.Name)
		}
	}
}

// TestDocsNameTestsThatExist looks for the tests that the pages name.
func TestDocsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	var tests []string
	walkGo(t, func(file string, test bool) {
		if test {
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)`).FindAllStringSubmatch(docText(t, file), -1) {
				tests = append(tests, m[1])
			}
		}
	})
	for _, page := range append(docPages(t, ""), "CONTRIBUTING.md") {
		for _, m := range regexp.MustCompile("`(Test[A-Z]\\w+)`").FindAllStringSubmatch(prose(docText(t, page)), -1) {
			assert.Contains(t, tests, m[1], page)
		}
	}
}

// TestDocsQuoteTexts looks for the texts of errors and log lines that Troubleshooting lists.
func TestDocsQuoteTexts(t *testing.T) {
	t.Parallel()
	source := strings.Builder{}
	walkGo(t, func(file string, test bool) {
		if !test {
			source.WriteString(docText(t, file))
		}
	})
	source.WriteString(docText(t, "testdata/errors.golden"))
	for _, page := range []string{"docs/troubleshooting.md", "docs/zh/troubleshooting.md"} {
		quoted := regexp.MustCompile("(?m)^- \\*\\*`(.+?)`\\*\\*").FindAllStringSubmatch(docText(t, page), -1)
		assert.Greater(t, len(quoted), 10, page)
		for _, m := range quoted {
			assert.Contains(t, source.String(), m[1], "%s: nothing says %q", page, m[1])
		}
	}
}

// TestDocsLinks finds links of the package comment that lead nowhere: go/doc leaves them as text,
// whose brackets are escaped in Markdown.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	text := string((&comment.Printer{}).Markdown(packageComment(t)))
	assert.NotRegexp(t, `\\\[[A-Za-z.]+\]`, text)
	assert.Greater(t, strings.Count(text, "]("), 30)
}

var packageRow = regexp.MustCompile("(?m)^\\| `(\\.|doctor|natstest|otelnats|event|tools/[a-z]+|internal/[a-z/]+)` \\| .+ \\|$")

// TestDocsMap compares the map of CONTRIBUTING.md with the packages, and the list in the doc.go of
// each engine with its files. The examples have an index of their own.
func TestDocsMap(t *testing.T) {
	t.Parallel()
	files := map[string][]string{}
	walkGo(t, func(file string, test bool) {
		if dir, name := path.Split(filepath.ToSlash(file)); !test && !strings.HasPrefix(dir, "examples/") {
			dir = cmp.Or(strings.TrimSuffix(dir, "/"), ".")
			files[dir] = append(files[dir], name)
		}
	})
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
		assert.True(t, strings.HasPrefix(dir, "internal/faults") || dir == "internal/chaos" || dir == "internal/bench" || strings.Contains(floors, dir), "%s has no floor in .golangci.yml", dir)
		var listed []string
		for _, m := range listedFile.FindAllStringSubmatch(docText(t, filepath.Join(dir, "doc.go")), -1) {
			listed = append(listed, m[1])
		}
		assert.ElementsMatch(t, names, append(listed, "doc.go"), "the list of %s/doc.go", dir)
	}
}

var listedFile = regexp.MustCompile(`(?m)^//   - ([a-z_]+\.go): `)

// walkGo calls f for every Go file of the repository.
func walkGo(t *testing.T, f func(file string, test bool)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		if err != nil || entry.IsDir() && file != "." && (name == "testdata" || strings.HasPrefix(name, ".")) {
			return cmp.Or(err, fs.SkipDir)
		}
		if strings.HasSuffix(name, ".go") {
			f(file, strings.HasSuffix(name, "_test.go"))
		}
		return nil
	}))
}

// TestDocsGoVersion: no module asks for a newer Go than the library, or programs that use both would.
func TestDocsGoVersion(t *testing.T) {
	t.Parallel()
	modules, err := filepath.Glob("examples/*/go.mod")
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^go .*$`)
	for _, file := range append(modules, "event/go.mod", "otelnats/go.mod", "internal/bench/go.mod") {
		assert.Equal(t, line.FindString(docText(t, "go.mod")), line.FindString(docText(t, file)), file)
	}
}
