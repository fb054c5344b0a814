package object

import (
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Whatever stands where metadata are, it is an object, or one that cannot be read, never one whose chunks' subject is
// another's.
func FuzzMetadata(f *testing.F) {
	for _, body := range []string{
		"", "null", "[]", "{}", `{"name":"a","nuid":"N","size":1,"chunks":1,"digest":"SHA-256=x"}`, `{"name":"a","nuid":">"}`, `{"nuid":"a.*"}`, `{"nuid":"a b","chunks":1}`, `{"size":-1,"chunks":4294967296}`,
		`{"name":"a","options":{"link":{"bucket":"B","name":null}}}`, `{"name":"a","options":null,"headers":{"x":null},"metadata":{}}`, `{"name":1,"nuid":2,"mtime":"x","renamed_from":["a"]}`,
		`{"name":"a","deleted":true,"renamed_to":"b"}`, `{"NAME":"A","Nuid":"\u0000"}`, `{"digest":"sha-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="}`,
	} {
		f.Add([]byte(body), "name", "")
	}
	f.Add([]byte(nil), "", "MaxAge")
	f.Add([]byte(`{"chunks":1}`), "a", "MaxAge")
	f.Fuzz(func(t *testing.T, body []byte, name, marker string) {
		require.Equal(t, name, nameOf(metaSubject("B", name), ""))
		m := wire.Stored{Subject: metaSubject("B", name), Sequence: 7, Time: time.Unix(1, 0), Data: body}
		if marker != "" {
			m.Header = natsgo.Header{jetstream.MarkerReasonHeader: {marker}}
		}
		v := readVersion("B", m)
		require.NotNil(t, v.info)
		if v.info.NUID != "" {
			require.Empty(t, subjects.Fault(chunkSubject("B", v.info.NUID), false))
			require.Equal(t, 3, strings.Count(chunkSubject("B", v.info.NUID), "."))
		}
		info, err := v.live()
		require.Equal(t, err == nil, info != nil && !info.Deleted && v.unread == nil)
		_, _ = digestOf(v.info.Digest)
		_, _, _, _ = v.isLink(), v.hasChunks(), v.has(name), v.move.other()
		if v.unread == nil && v.info.Name != "" {
			written, err := new(Store).message(v, 7)
			require.NoError(t, err)
			again := readVersion("B", wire.Stored{Subject: written.Subject, Sequence: 7, Time: time.Unix(1, 0), Data: written.Data})
			require.NoError(t, again.unread)
			require.Equal(t, v.info.NUID, again.info.NUID)
			require.Equal(t, v.move, again.move)
		}
	})
}
