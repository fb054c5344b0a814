package fault

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the tables of docs/errors.md anew")

// The tables of docs/errors.md are made from the code: run the test with -update after a change.
func TestErrorsPage(t *testing.T) {
	t.Parallel()
	const page = "../../docs/errors.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	made := string(text)
	for name, table := range map[string]string{
		"sentinels": sentinelTable(t), "services": serviceTable(), "upstream": upstreamTable(t), "codes": codeTable(),
	} {
		begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
		before, rest, found := strings.Cut(made, begin)
		_, after, ended := strings.Cut(rest, end)
		require.True(t, found && ended, name)
		made = before + begin + table + end + after
	}
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(made), 0o600))
		return
	}
	assert.Equal(t, made, string(text), "run the test with -update")
}

func (c Class) cells() string {
	yes := map[bool]string{true: "yes", false: "-"}
	return fmt.Sprintf("%s | %s | %s", c.name(), yes[c.IsRetryable()], yes[c.IsUncertain()])
}

// name is that of the constant of the root package.
func (c Class) name() string {
	var name strings.Builder
	for word := range strings.SplitSeq(c.Kind, "_") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return "`Kind" + name.String() + "`"
}

func sentinelTable(t *testing.T) string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "sentinels.go", nil, 0)
	require.NoError(t, err)
	table := "| Error | Kind | Retryable | Uncertain |\n|---|---|---|---|\n"
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Names[0].IsExported() {
			class := Class{InvalidArgument, 0} // of ErrPullRefused
			if made := spec.Values[0].(*ast.CallExpr); len(made.Args) == 3 {
				class = classIn(t, made.Args[1], made.Args[2])
			}
			table += fmt.Sprintf("| `%s` | %s |\n", spec.Names[0].Name, class.cells())
		}
		return true
	})
	return table
}

// classIn reads what stands in the source.
func classIn(t *testing.T, kind, flags ast.Expr) (class Class) {
	t.Helper()
	named := kind.(*ast.Ident).Name
	i := slices.IndexFunc(gravity, func(kind string) bool { return strings.EqualFold(strings.ReplaceAll(kind, "_", ""), named) })
	require.Positive(t, i, named)
	class.Kind = gravity[i]
	var source bytes.Buffer
	require.NoError(t, format.Node(&source, token.NewFileSet(), flags))
	for mark := range strings.SplitSeq(source.String(), "|") {
		class.marks |= map[string]marks{"0": 0, "again": again, "doubt": doubt}[strings.TrimSpace(mark)]
	}
	return class
}

func serviceTable() string {
	of := map[Class][]string{}
	for code := 100; code < 600; code++ {
		if class := ofStatus(code); code%100 != 99 && class != ofStatus(code/100*100+98) || code == 499 {
			of[class] = append(of[class], strconv.Itoa(code))
		}
	}
	of[ofStatus(498)] = append(of[ofStatus(498)], "other 4xx")
	of[ofStatus(598)] = append(of[ofStatus(598)], "other 5xx")
	of[ofStatus(0)] = append(of[ofStatus(0)], "none of these")
	return classTable("Codes", of)
}

func upstreamTable(t *testing.T) string {
	t.Helper()
	of := map[Class][]string{}
	quoted := func(name string) string { return "`" + strings.Replace(name, "natsgo.", "nats.", 1) + "`" }
	names := namesIn(t, "upstream.go", "upstreamSentinels")
	for _, pair := range upstreamSentinels {
		if strings.HasPrefix(pair.upstream.Error(), "nats: ") {
			class := Classify(pair.ours, nil)
			of[class] = append(of[class], quoted(names[0]))
			names = names[1:]
		}
	}
	literal := valueOf(t, "upstream.go", "upstreamClasses").(*ast.CompositeLit)
	for _, element := range literal.Elts {
		pair := element.(*ast.KeyValueExpr)
		key := pair.Key.(*ast.CompositeLit)
		class := classIn(t, key.Elts[0], key.Elts[1])
		for _, value := range pair.Value.(*ast.CompositeLit).Elts {
			if from := value.(*ast.SelectorExpr); from.Sel.Name != "" {
				of[class] = append(of[class], quoted(from.X.(*ast.Ident).Name+"."+from.Sel.Name))
			}
		}
	}
	return classTable("Errors", of)
}

func codeTable() string {
	of := map[Class][]string{}
	for _, code := range slices.Sorted(maps.Keys(server.ApiErrors)) {
		known := server.ApiErrors[code]
		class := Classify(&jetstream.APIError{Code: known.Code, ErrorCode: jetstream.ErrorCode(code), Description: known.Description}, nil)
		of[class] = append(of[class], strconv.Itoa(int(code)))
	}
	return classTable("Codes", of)
}

func classTable(what string, of map[Class][]string) string {
	table := "| Kind | Retryable | Uncertain | " + what + " |\n|---|---|---|---|\n"
	for _, class := range slices.SortedFunc(maps.Keys(of), func(a, b Class) int {
		return cmp.Or(slices.Index(gravity, a.Kind)-slices.Index(gravity, b.Kind), int(a.marks)-int(b.marks))
	}) {
		table += fmt.Sprintf("| %s | %s |\n", class.cells(), strings.Join(of[class], ", "))
	}
	return table
}
