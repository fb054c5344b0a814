package conn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pieces hands out data in pieces of the given sizes, each at least 1, again and again.
type pieces struct {
	data  []byte
	sizes []byte
	turn  int
}

func (s *pieces) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := len(p)
	if len(s.sizes) > 0 {
		n = min(n, 1+int(s.sizes[s.turn%len(s.sizes)])*100)
		s.turn++
	}
	n = copy(p[:n], s.data)
	s.data = s.data[n:]
	return n, nil
}

// followed reads all that a reader lets through.
func followed(data, sizes []byte, buffer int) (passed []byte, errs []string, infos int, end error) {
	r := reader{
		source: &pieces{data: data, sizes: sizes},
		onErr:  func(text string) verdict { errs = append(errs, text); return judge(text) },
		onInfo: func([]byte) { infos++ },
		onPong: func() {},
	}
	p := make([]byte, buffer)
	for {
		n, err := r.Read(p)
		passed = append(passed, p[:n]...)
		if err != nil {
			return passed, errs, infos, err
		}
	}
}

// However the server's bytes are cut, nats.go gets the same ones.
func FuzzReader(f *testing.F) {
	long := strings.Repeat("x", 300)
	for _, text := range []string{
		"PING\r\n", "MSG a 1 5\r\nhello\r\nPING\r\n", "MSG a 1 9\r\n-ERR 'x'\n\r\n", "HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", "INFO {}\r\n+OK\r\nPONG\r\n",
		"-ERR 'Invalid Subject'\r\nPING\r\n", "-ERR 'Permissions Violation for Publish to \"a\"'\r\nPING\r\n", "-ERR 'Maximum Control Line Exceeded'\r\nPING\r\n",
		"-ERR 'Invalid Subject " + long + "'\r\nPING\r\n", "-ERR 'Permissions Violation " + long + "'\r\nPING\r\n", "-ERR " + long, "INFO " + long,
		"MSG a 1 99999999999999999999\r\nx\r\n", "MSG a 1 9000000000000000000\r\nx\r\n", "MSG a 1 -1\r\nx\r\n", "MSG\r\n", "\n", "\r\n", "-\n", "-ERR\n", "M\nH\nI\n",
	} {
		f.Add([]byte(text), []byte(nil), uint16(32_768))
		f.Add([]byte(text), []byte{0, 3, 255}, uint16(100))
	}
	f.Fuzz(func(t *testing.T, data, sizes []byte, buffer uint16) {
		want, wantErrs, wantInfos, wantEnd := followed(data, nil, len(data)+512)
		got, errs, infos, end := followed(data, sizes, max(int(buffer), 1))
		assert.True(t, bytes.HasPrefix(got, want)) // a line that ends it may have been begun
		if errors.Is(end, io.EOF) {
			assert.Equal(t, want, got)
		}
		assert.Equal(t, wantErrs, errs)
		assert.Equal(t, wantInfos, infos)
		assert.Equal(t, wantEnd, end)
		if !bytes.ContainsAny(data, "-") {
			assert.True(t, bytes.HasPrefix(data, got))
		}
	})
}

// What is in a payload is none of the protocol, and what is behind it is.
func TestPayloads(t *testing.T) {
	t.Parallel()
	const payload = "\r\n-ERR 'Invalid Subject'\r\nINFO {}\r\n-ERR 'x"
	for _, line := range []string{"MSG a 1 %d\r\n", "MSG a 1 r %d\n", "HMSG a 1 2 %d\r\n"} {
		whole := fmt.Sprintf(line, len(payload)) + payload + "\r\nPING\r\n"
		for _, sizes := range [][]byte{nil, {0}} {
			passed, errs, infos, end := followed([]byte(whole+"-ERR 'Invalid Subject'\r\n"), sizes, 120)
			assert.Equal(t, whole, string(passed))
			assert.Equal(t, []string{"Invalid Subject"}, errs)
			assert.Zero(t, infos)
			assert.Equal(t, io.EOF, end)
		}
	}
}

// An -ERR may be longer than the buffer of nats.go, which has it whole or not at all.
func TestLongErrors(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for text, want := range map[string]string{
		"-ERR 'Permissions Violation " + long + "'\r\n": "-ERR 'Permissions Violation " + long + "'\r\nPONG\r\n",
		"-ERR 'Invalid Subject " + long + "'\r\n":       "PONG\r\n",
		"-ERR 'Secure Connection " + long + "'\r\n":     "",
	} {
		passed, errs, _, _ := followed([]byte("PING\r\n"+text+"PONG\r\n"), []byte{255, 1, 80}, 32<<10)
		assert.Equal(t, "PING\r\n"+want, string(passed))
		assert.Len(t, errs, 1)
	}
}

// A server that is none, or gone mad, ends its connection and not the process: nats.go allocates what a message is
// announced to have.
func TestReaderBoundsWhatTheServerSays(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"-ERR 'Invalid Subject", "INFO {", "MSG a 1 ",
	} {
		endless := io.MultiReader(strings.NewReader(text), repeated("0"))
		r := reader{source: endless, onErr: judge, onInfo: func([]byte) {}}
		read := 0
		p := make([]byte, 32<<10)
		for {
			n, err := r.Read(p)
			if read += n; err != nil {
				require.ErrorContains(t, err, "no end", text)
				break
			}
			require.LessOrEqual(t, read, 2*maxInfo, text)
		}
	}
	for _, line := range []string{"MSG a 1 1073741825", "HMSG a 1 12 2147483648", "MSG a 1 9000000000000000000", "MSG a 1 99999999999999999999"} {
		passed, _, _, err := followed([]byte("PING\r\n"+line+"\r\nx"), nil, 512)
		require.ErrorContains(t, err, "more than 1 GiB", line)
		require.Equal(t, "PING\r\n", string(passed))
	}
}

// repeated is a text without end.
type repeated string

func (r repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r[i%len(r)]
	}
	return len(p), nil
}
