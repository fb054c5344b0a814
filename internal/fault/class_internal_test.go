package fault

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// byCode are the errors of upstream's that need no place in a table, for they have a code.
var byCode = []error{
	natsgo.ErrJetStreamNotEnabled, natsgo.ErrJetStreamNotEnabledForAccount, natsgo.ErrStreamNotFound, natsgo.ErrStreamNameAlreadyInUse,
	natsgo.ErrConsumerNotFound, natsgo.ErrMsgNotFound, natsgo.ErrBadRequest, natsgo.ErrDuplicateFilterSubjects,
	natsgo.ErrOverlappingFilterSubjects, natsgo.ErrEmptyFilter,
	jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount, jetstream.ErrStreamMessageExceedsMaximum,
	jetstream.ErrStreamNotFound, jetstream.ErrStreamNameAlreadyInUse, jetstream.ErrConsumerNotFound, jetstream.ErrConsumerExists,
	jetstream.ErrConsumerDoesNotExist, jetstream.ErrConsumerInvalidReset, jetstream.ErrMsgNotFound, jetstream.ErrBadRequest,
	jetstream.ErrConsumerCreate, jetstream.ErrMaximumConsumersLimit, jetstream.ErrDuplicateFilterSubjects,
	jetstream.ErrOverlappingFilterSubjects, jetstream.ErrEmptyFilter, jetstream.ErrScheduleTargetInvalid,
	jetstream.ErrSchedulePatternInvalid, jetstream.ErrMessageSchedulesDisabled, jetstream.ErrScheduleSourceInvalid,
	jetstream.ErrScheduleTTLInvalid, jetstream.ErrScheduleRollupInvalid, jetstream.ErrMirrorWithMsgSchedules,
	jetstream.ErrSourceWithMsgSchedules,
}

// byType are upstream's types of errors that Classify knows.
var byType = []error{&natsgo.APIError{ErrorCode: 10003}, &jetstream.APIError{ErrorCode: 10003}, &natsgo.ErrConsumerSequenceMismatch{}}

// Every error that upstream exports has a class, and every code that it names. A new one makes this test fail:
// it belongs into a table of upstream.go, or above when it has a code.
func TestUpstreamsErrorsHaveClasses(t *testing.T) {
	t.Parallel()
	listed := slices.Concat(namesIn(t, "upstream.go", "upstreamSentinels"), namesIn(t, "upstream.go", "upstreamClasses"),
		namesIn(t, "class_internal_test.go", "byCode"))
	assert.Len(t, listed, len(slices.Compact(slices.Sorted(slices.Values(listed)))), "one is listed twice")
	for _, err := range slices.Concat(byCode, byType) {
		assert.NotEqual(t, Unknown, Classify(err, nil).Kind, "%T %v", err, err)
	}
	known := []string{"natsgo.JetStreamError", "jetstream.JetStreamError", "micro.NATSError"} // interfaces, and a wrapper
	for _, err := range byType {
		known = append(known, strings.Replace(fmt.Sprintf("%T", err)[1:], "nats.", "natsgo.", 1))
	}
	fails := types.Universe.Lookup("error").Type().Underlying().(*types.Interface)
	load := loader(t, "github.com/nats-io/nats.go", "github.com/nats-io/nats.go/jetstream", "github.com/nats-io/nats.go/micro")
	for path, name := range map[string]string{"": "natsgo", "/jetstream": "jetstream", "/micro": "micro"} {
		pkg, err := load.Import("github.com/nats-io/nats.go" + path)
		require.NoError(t, err)
		found := 0
		for _, object := range pkg.Scope().Names() {
			full := name + "." + object
			switch object := pkg.Scope().Lookup(object); {
			case !object.Exported():
			case isA[*types.Const](object) && object.Type().String() == pkg.Path()+".ErrorCode":
				var code uint16
				_, err := fmt.Sscan(object.(*types.Const).Val().ExactString(), &code)
				require.NoError(t, err)
				known := server.ApiErrors[server.ErrorIdentifier(code)]
				require.NotNil(t, known, full)
				bare, whole := &jetstream.APIError{ErrorCode: jetstream.ErrorCode(code)}, &jetstream.APIError{ErrorCode: jetstream.ErrorCode(code), Code: known.Code}
				assert.Equal(t, Classify(whole, nil), Classify(bare, nil), full)
			case isA[*types.Var](object) && types.Implements(object.Type(), fails):
				found++
				assert.Contains(t, listed, full, "it has no class")
			case isA[*types.TypeName](object) && types.Implements(types.NewPointer(object.Type()), fails) || types.Implements(object.Type(), fails):
				assert.Contains(t, known, full, "a type of errors that has no class")
			}
		}
		assert.Greater(t, found, 5, name)
	}
	for code, known := range server.ApiErrors {
		err := &jetstream.APIError{Code: known.Code, ErrorCode: jetstream.ErrorCode(code), Description: known.Description}
		class := Classify(err, nil)
		assert.NotEqual(t, Unknown, class.Kind, "%v", err)
		assert.True(t, class.IsRetryable() || !Passes(err), "%v", err)
	}
}

func isA[T any](v any) bool {
	_, ok := v.(T)
	return ok
}

// loader imports packages from what the compiler has exported.
func loader(t *testing.T, packages ...string) types.Importer {
	t.Helper()
	var stderr bytes.Buffer
	list := exec.Command("go", append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, packages...)...)
	list.Stderr = &stderr
	output, err := list.Output()
	require.NoError(t, err, stderr.String())
	exports := map[string]string{}
	for line := range strings.Lines(string(output)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = file
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
}

// namesIn returns the names of other packages in the value of a variable, the first of each element.
func namesIn(t *testing.T, file, variable string) []string {
	t.Helper()
	var names []string
	ast.Inspect(valueOf(t, file, variable), func(n ast.Node) bool {
		if qualified, ok := n.(*ast.SelectorExpr); ok {
			if from, ok := qualified.X.(*ast.Ident); ok && slices.Contains([]string{"natsgo", "jetstream", "micro"}, from.Name) &&
				strings.HasPrefix(qualified.Sel.Name, "Err") {
				names = append(names, from.Name+"."+qualified.Sel.Name)
			}
		}
		return true
	})
	return names
}

func valueOf(t *testing.T, file, variable string) (value ast.Expr) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Names[0].Name == variable {
			value = spec.Values[0]
		}
		return true
	})
	require.NotNil(t, value, variable)
	return value
}
