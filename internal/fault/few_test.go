package fault_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// A text does not grow with the number of its causes, all of which errors.Is finds.
func TestFew(t *testing.T) {
	t.Parallel()
	texts := []string{"a", "b", "c", "d"}
	require.Equal(t, "a; b; c; d", fault.Few(texts, "; ", 4))
	require.Equal(t, "a, b, and 2 more", fault.Few(texts, ", ", 2))
	require.Equal(t, []string{"a", "b", "c", "d"}, texts)
	require.Empty(t, fault.Few(nil, ", ", 2))

	var many fault.Joined
	for i := range 50_000 {
		many = append(many, fmt.Errorf("cause %d", i))
	}
	last := errors.New("the last")
	many = append(many, last)
	require.ErrorIs(t, many, last)
	require.Less(t, len(many.Error()), 1000)
	require.True(t, strings.HasSuffix(many.Error(), "; and 49951 more"))
}
