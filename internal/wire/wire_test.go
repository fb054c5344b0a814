package wire_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

func status(code, description string, more ...string) *natsgo.Msg {
	m := &natsgo.Msg{Header: natsgo.Header{"Status": {code}, "Description": {description}}}
	for i := 0; i < len(more); i += 2 {
		m.Header.Set(more[i], more[i+1])
	}
	return m
}

func TestStatusIsOfTheServerOnly(t *testing.T) {
	t.Parallel()
	code, description := wire.Status(status("408", "Request Timeout"))
	assert.Equal(t, "408 Request Timeout", code+" "+description)
	assert.True(t, wire.NoResponders(status("503", "")))
	for _, m := range []*natsgo.Msg{
		{},
		{Data: []byte("x"), Header: natsgo.Header{"Status": {"503"}}},
		{Reply: "$JS.ACK.x", Header: natsgo.Header{"Status": {"404"}}},
		{Reply: "x", Header: natsgo.Header{"Status": {"503"}, micro.ErrorCodeHeader: {"503"}}},
	} {
		code, _ := wire.Status(m)
		assert.Empty(t, code)
		assert.False(t, wire.NoResponders(m))
	}
	assert.True(t, wire.IsServers("nats-rollup"))
	assert.True(t, wire.IsServers("Nats-"))
	assert.False(t, wire.IsServers("Nats"))
	assert.False(t, wire.IsServers("Content-Type"))
}

func TestPullBodies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ want, got string }{
		{`{"batch":1}`, string(wire.Pull(1, 0, 0, 0, false))},
		{`{"batch":2,"expires":1000000000,"no_wait":true}`, string(wire.Pull(2, 0, time.Second, 0, true))},
		{`{"batch":3,"max_bytes":4,"expires":2000000000,"idle_heartbeat":1000000000}`, string(wire.Pull(3, 4, 2*time.Second, time.Second, false))},
	} {
		assert.Equal(t, test.want, test.got)
		assert.True(t, json.Valid([]byte(test.got)))
	}
	assert.Equal(t, `-NAK {"delay": 1500000000}`, string(wire.NakAfter(1500*time.Millisecond)))
	assert.Equal(t, "+TERM", string(wire.Term("")))
	assert.Equal(t, "+TERM why", string(wire.Term("why")))
}

func TestHowPullsEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		m     *natsgo.Msg
		err   error // wire.ErrPullAgain, one of upstream's, or nil
		text  string
		ended bool
		full  bool
		bytes int
	}{
		{m: status("404", "No Messages")},
		{m: status("408", "Request Timeout", "Nats-Pending-Messages", "7"), ended: true},
		{m: status("408", "Requests Pending", "Nats-Pending-Messages", "7"), err: wire.ErrPullAgain, ended: true},
		{m: status("409", "Batch Completed", "Nats-Pending-Messages", "7"), text: "409 Batch Completed", ended: true},
		{m: status("409", "Message Size Exceeds MaxBytes", "Nats-Pending-Messages", "7"), text: "409 Message Size Exceeds MaxBytes", ended: true, full: true},
		{m: status("409", "Consumer Deleted"), err: jetstream.ErrConsumerDeleted},
		{m: status("409", "Leadership Change"), err: wire.ErrPullAgain},
		{m: status("409", "Server Shutdown"), err: wire.ErrPullAgain},
		{m: status("409", "Exceeded MaxWaiting"), err: wire.ErrTooManyPulls},
		{m: status("503", ""), err: natsgo.ErrNoResponders},
		{m: status("400", "Bad Request"), err: fault.ErrPullRefused},
		{m: status("409", "Exceeded MaxRequestBatch of 1"), err: fault.ErrPullRefused},
		{m: status("409", "Exceeded MaxRequestMaxBytes of 5"), err: fault.ErrPullRefused, bytes: 5},
		{m: status("409", "Consumer is push based"), err: fault.ErrPullRefused},
	} {
		err := wire.PullError(wire.Status(test.m))
		ended := wire.PullEnded(test.m)
		switch {
		case test.text != "":
			require.EqualError(t, err, "the server answered "+test.text)
		case test.err == nil:
			require.NoError(t, err)
		default:
			require.ErrorIs(t, err, test.err)
		}
		assert.Equal(t, test.ended, ended, test.m.Header)
		assert.Equal(t, test.full, wire.PullFull(test.m), test.m.Header)
		assert.Equal(t, test.bytes, wire.RefusedBytes(err), test.m.Header)
	}
	assert.Equal(t, "5", wire.LastDelivered(status("100", "Idle Heartbeat", "Nats-Last-Consumer", "5")))
}

// What pulls may still bring is known although the server says nothing of one whose limit of bytes is met exactly.
func TestPulls(t *testing.T) {
	t.Parallel()
	sized := func(size int) *natsgo.Msg { return &natsgo.Msg{Subject: "s", Data: make([]byte, size-1)} }
	end := func(messages, bytes string) *natsgo.Msg {
		return status("409", "Batch Completed", "Nats-Pending-Messages", messages, "Nats-Pending-Bytes", bytes)
	}
	for name, test := range map[string]struct {
		do   func(*wire.Pulls)
		left int
	}{
		"none":         {func(*wire.Pulls) {}, 0},
		"some came":    {func(p *wire.Pulls) { p.Add(3, 0); p.Came(sized(5)) }, 2},
		"exactly":      {func(p *wire.Pulls) { p.Add(9, 12); p.Came(sized(5)); p.Came(sized(7)) }, 0},
		"nearly":       {func(p *wire.Pulls) { p.Add(9, 12); p.Came(sized(5)); p.Came(sized(6)) }, 7},
		"exactly, two": {func(p *wire.Pulls) { p.Add(9, 12); p.Add(4, 3); p.Came(sized(12)); p.Came(sized(3)) }, 0},
		"one of two":   {func(p *wire.Pulls) { p.Add(9, 12); p.Add(4, 3); p.Came(sized(12)) }, 12},
		"it has ended": {func(p *wire.Pulls) { p.Add(9, 12); p.Came(sized(8)); p.End(end("8", "4")) }, 0},
		"completed": {func(p *wire.Pulls) {
			p.Add(1, 12)
			p.Add(2, 9)
			p.Came(sized(8))
			p.End(end("0", "4"))
			p.Came(sized(9))
		}, 0},
		"told before": {func(p *wire.Pulls) { p.Add(2, 12); p.End(end("1", "4")) }, 1},
		"refused": {func(p *wire.Pulls) {
			p.Add(9, 12)
			p.Add(1, wire.AnyBytes)
			p.End(status("404", "No Messages"))
			p.Came(sized(12))
		}, 0},
		"without limit": {func(p *wire.Pulls) { p.Add(9, 12); p.Add(9, 0); p.Came(sized(12)) }, 17},
		"no longer":     {func(p *wire.Pulls) { p.Add(1, 0); p.Came(sized(1)); p.Add(9, 12); p.Came(sized(12)) }, 0},
		"in doubt":      {func(p *wire.Pulls) { p.Add(9, 12); p.Doubt(); p.Add(1, 5); p.Came(sized(12)) }, 0},
		"in doubt, late": {func(p *wire.Pulls) {
			p.Add(9, 12)
			p.Doubt()
			p.Came(sized(5))
			p.Add(3, 5)
			p.Came(sized(7))
			p.Add(4, 5)
		}, 6},
		"more than that": {func(p *wire.Pulls) { p.Add(2, 12); p.End(end("-5", "-5")) }, 2},
	} {
		var p wire.Pulls
		test.do(&p)
		assert.Equal(t, test.left, p.Left(), name)
	}
}

func TestStoredMessages(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	header := natsgo.Header{"Nats-Sequence": {"12"}, "Nats-Time-Stamp": {"2026-01-02T03:04:05.000000006Z"}, "Nats-Subject": {"a.b"}}
	got, err := wire.ParseDirect(&natsgo.Msg{Header: header, Data: []byte("x")})
	require.NoError(t, err)
	assert.Equal(t, wire.Stored{Subject: "a.b", Sequence: 12, Time: at, Header: header, Data: []byte("x")}, got)
	got, err = wire.ParseStored(&natsgo.Msg{Data: []byte(`{"message":{"subject":"a.b","seq":12,"hdrs":"TkFUUy8xLjANCkE6IGINCg0K","data":"eA==","time":"2026-01-02T03:04:05.000000006Z"}}`)})
	require.NoError(t, err)
	assert.Equal(t, wire.Stored{Subject: "a.b", Sequence: 12, Time: at, Header: natsgo.Header{"A": {"b"}}, Data: []byte("x")}, got)

	for _, m := range []*natsgo.Msg{status("404", "Message Not Found"), {Data: []byte(`{"error":{"code":404,"err_code":10037}}`)}} {
		parse := wire.ParseDirect
		if len(m.Data) > 0 {
			parse = wire.ParseStored
		}
		_, err := parse(m)
		require.Equal(t, jetstream.ErrMsgNotFound, err)
	}
	_, err = wire.ParseDirect(status("503", ""))
	require.ErrorIs(t, err, natsgo.ErrNoResponders)
	_, err = wire.ParseStored(status("503", ""))
	require.ErrorIs(t, err, natsgo.ErrNoResponders)
	for _, header := range []natsgo.Header{
		{"Nats-Sequence": {"-1"}, "Nats-Time-Stamp": header["Nats-Time-Stamp"]}, {"Nats-Sequence": {"12"}, "Nats-Time-Stamp": {"now"}},
	} {
		_, err = wire.ParseDirect(&natsgo.Msg{Header: header})
		require.Error(t, err, header)
	}
	for name := range header {
		assert.True(t, wire.Describes(name), name)
	}
	assert.False(t, wire.Describes("Nats-Msg-Id"))
	_, err = wire.ParseDirect(status("408", "Bad Request"))
	require.ErrorContains(t, err, "408 Bad Request")
	for _, data := range []string{"", "{}", `{"error":{"code":500,"description":"broken"}}`, `{"message":{"hdrs":"eA=="}}`, `{"message":{"subject":1}}`} {
		_, err = wire.ParseStored(&natsgo.Msg{Data: []byte(data)})
		require.Error(t, err, data)
		require.NotErrorIs(t, err, jetstream.ErrMsgNotFound, data)
		if strings.Contains(data, "broken") {
			require.ErrorContains(t, err, "broken")
		}
	}
	got, err = wire.ParseStored(&natsgo.Msg{Data: []byte(`{"message":{"subject":"a"}}`)})
	require.NoError(t, err)
	assert.Equal(t, wire.Stored{Subject: "a", Data: []byte{}}, got)
	assert.True(t, wire.Vanished(status("404", "Message Not Found")))
	assert.False(t, wire.Vanished(status("404", "No Results")))
	assert.False(t, wire.Vanished(status("500", "Message Not Found")))
	complete, ends := wire.EndOfBatch(status("204", "EOB", "Nats-Num-Pending", "0"))
	assert.True(t, complete && ends)
	complete, ends = wire.EndOfBatch(status("204", "EOB", "Nats-Num-Pending", "9"))
	assert.True(t, !complete && ends)
	_, ends = wire.EndOfBatch(&natsgo.Msg{Header: header, Data: []byte("x")})
	assert.False(t, ends)
}

// The fast way and the JSON decoder read the same.
func TestPubAcks(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]*jetstream.PubAck{
		`{"stream":"S","seq":7}`:                                   {Stream: "S", Sequence: 7},
		`{"stream":"S", "seq":7}`:                                  {Stream: "S", Sequence: 7},
		`{"stream":"S","seq":7,"duplicate":true}`:                  {Stream: "S", Sequence: 7, Duplicate: true},
		`{"stream":"S","domain":"hub","seq":18446744073709551615}`: {Stream: "S", Domain: "hub", Sequence: 18446744073709551615},
		`{"stream":"\u0053","seq":7}`:                              {Stream: "S", Sequence: 7},
	} {
		got, err := wire.ParsePubAck(&natsgo.Msg{Data: []byte(data)})
		require.NoError(t, err, data)
		assert.Equal(t, want, got, data)
	}
	for _, data := range []string{"", "{}", "null", "hello", `{"seq":7}`, `{"stream":"S","seq":-1}`, `{"stream":"S","seq":7}x`} {
		_, err := wire.ParsePubAck(&natsgo.Msg{Data: []byte(data)})
		require.ErrorIs(t, err, jetstream.ErrInvalidJSAck, data)
	}
	_, err := wire.ParsePubAck(&natsgo.Msg{Data: []byte(`{"error":{"code":400,"err_code":10071,"description":"wrong"},"stream":"S","seq":0}`)})
	var api *jetstream.APIError
	require.ErrorAs(t, err, &api)
	assert.True(t, strings.HasPrefix(api.Description, "wrong"))
	_, err = wire.ParsePubAck(status("503", ""))
	require.ErrorIs(t, err, natsgo.ErrNoResponders)
}

// The usual one takes the fast way.
func TestPlainPubAckIsCheap(t *testing.T) {
	m := &natsgo.Msg{Data: []byte(`{"stream":"ORDERS","seq":7}`)}
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = wire.ParsePubAck(m) }), 2.0, "what it returns")
}

func TestSized(t *testing.T) {
	t.Parallel()
	header := natsgo.Header{"A": {"b"}} // 20 bytes
	require.EqualError(t, wire.Sized(natsgo.ErrMaxPayload, header, []byte("cd"), 7), "20 bytes, and the server's max_payload is 7: nats: maximum payload exceeded")
	for _, other := range []error{nil, natsgo.ErrTimeout, &jetstream.APIError{ErrorCode: 1}} {
		require.Equal(t, other, wire.Sized(other, header, nil, 7))
	}
}

func TestServiceErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code        int
		description string
		wantCode    int
		want        string
	}{
		{0, "", 500, "Internal Server Error"}, {404, " ", 404, "Not Found"}, {7, "", 7, "error 7"}, {9, " a\r\nb ", 9, "a b"},
	} {
		header := natsgo.Header{}
		code, description := wire.ServiceError(header, test.code, test.description)
		assert.Equal(t, test.wantCode, code)
		assert.Equal(t, test.want, description)
		code, description, is := wire.ReadServiceError(header)
		assert.True(t, is)
		assert.Equal(t, test.wantCode, code)
		assert.Equal(t, test.want, description)
	}
	for _, test := range []struct {
		header natsgo.Header
		code   int
		text   string
		is     bool
	}{
		{nil, 0, "", false},
		{natsgo.Header{"Nats-Service-Error": {"a", "b"}}, 0, "a b", true},
		{natsgo.Header{"Nats-Service-Error-Code": {" 7 "}}, 7, "", true},
		{natsgo.Header{"Nats-Service-Error-Code": {"x", "y"}}, 0, "x y", true},
		{natsgo.Header{"Nats-Service-Error-Code": {"x"}, "Nats-Service-Error": {"a"}}, 0, "x: a", true},
		{natsgo.Header{"Nats-Service-Error-Code": {""}, "Nats-Service-Error": {"a"}}, 0, "a", true},
	} {
		code, text, is := wire.ReadServiceError(test.header)
		assert.Equal(t, test.code, code, test.header)
		assert.Equal(t, test.text, text, test.header)
		assert.Equal(t, test.is, is, test.header)
	}
}
