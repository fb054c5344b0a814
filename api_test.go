package nats_test

import (
	"bytes"
	"go/ast"
	"go/doc"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocsAPI compares the API with api/v0.txt, so that nobody changes it unawares: `make api` writes the file anew, in
// the commit of the change, and tells what of the change breaks programs.
func TestDocsAPI(t *testing.T) {
	t.Parallel()
	var api strings.Builder
	for _, dir := range []string{".", "doctor", "natstest"} {
		pkg, set := docPackage(t, dir)
		values := func(of ...*doc.Value) {
			var texts []string
			for _, v := range of {
				texts = append(texts, bare(t, set, v.Decl))
			}
			slices.Sort(texts) // and not by the files in which they stand
			api.WriteString(strings.Join(texts, ""))
		}
		functions := func(of ...*doc.Func) {
			for _, f := range of {
				f.Decl.Body = nil
				api.WriteString(bare(t, set, f.Decl))
			}
		}
		api.WriteString("package " + pkg.Name + "\n")
		values(slices.Concat(pkg.Consts, pkg.Vars)...)
		functions(pkg.Funcs...)
		for _, typ := range pkg.Types {
			api.WriteString(bare(t, set, typ.Decl))
			values(slices.Concat(typ.Consts, typ.Vars)...)
			functions(slices.Concat(typ.Funcs, typ.Methods)...)
		}
	}
	path := filepath.Join("api", "v0.txt")
	if *updateGolden {
		require.NoError(t, os.WriteFile(path, []byte(api.String()), 0o644))
	}
	assert.Equal(t, docText(t, path), api.String(), "the API has changed: make api")
}

var emptyLines = regexp.MustCompile(`\n\s*\n`)

// bare prints a declaration without its comments, which are free to change.
func bare(t *testing.T, set *token.FileSet, d ast.Decl) string {
	t.Helper()
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			n.Doc = nil
		case *ast.GenDecl:
			n.Doc = nil
		case *ast.TypeSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.ValueSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.Field:
			n.Doc, n.Comment = nil, nil
		}
		return true
	})
	var text bytes.Buffer
	require.NoError(t, (&printer.Config{Mode: printer.UseSpaces | printer.TabIndent, Tabwidth: 8}).Fprint(&text, set, d))
	return emptyLines.ReplaceAllString(text.String()+"\n", "\n")
}
