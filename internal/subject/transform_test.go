package subject_test

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// What the server makes of a subject is undone, or it is said that it cannot be.
func TestUndo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		source, destination, before string
		ok                          bool
	}{
		{"in.>", "orders.>", "in.a.b", true},
		{"", "orders.>", "in.a.b", true},
		{">", "orders.>", "a", true},
		{"in.a", "out", "in.a", true},
		{"in.*.*", "out.{{wildcard(2)}}.{{ Wildcard( 1 ) }}", "in.a.b", true},
		{"in.*.*", "out.$2.x.$1", "in.a.b", true},
		{"in.*.>", "out.{{wildcard(1)}}.y.>", "in.a.b.c", true},
		{"in.*", "out.{{partition(10,1)}}.{{wildcard(1)}}", "in.a", true},
		{"in.*", "out.{{partition(10,1)}}", "in.a", false},
		{"in.*.*", "out.{{wildcard(1)}}", "in.a.b", false},
		{"in.*", "out.{{left(1,2)}}", "in.abc", false},
		{"in.*", "out.{{SplitFromLeft(1,1)}}", "in.abc", false},
	} {
		transform, err := server.NewSubjectTransform(c.source, c.destination)
		require.NoError(t, err, c.destination)
		after, err := transform.Match(c.before)
		require.NoError(t, err, c.destination)
		before, ok := subject.Undo(c.source, c.destination, after)
		assert.Equal(t, c.ok, ok, "%s, %s", c.destination, after)
		if c.ok {
			assert.Equal(t, c.before, before, c.destination)
		}
	}
	for _, other := range []string{"orders", "other.a", "orders.a", "other.a.b", "orders.a.b.c"} {
		_, ok := subject.Undo("in.*.*", "orders.$1.$2", other)
		assert.False(t, ok, other)
	}
	_, ok := subject.Undo("in.*", "o.$1.$1", "o.a.b")
	assert.False(t, ok, "the two are of one token")
	before, ok := subject.Undo("in.*", "o.$1.$1", "o.a.a")
	assert.True(t, ok && before == "in.a")
	for _, destination := range []string{"o", "o.>"} {
		_, ok = subject.Undo("in.>", destination, "o")
		assert.False(t, ok, "the rest is not told")
	}
}
