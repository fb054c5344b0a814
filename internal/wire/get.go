package wire

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Get is the body of a request for a stored message, of the leader (STREAM.MSG.GET) or of any replica
// (DIRECT.GET). LastOf asks a replica for the last messages of many subjects.
type Get struct {
	Sequence uint64   `json:"seq,omitempty"`
	LastFor  string   `json:"last_by_subj,omitempty"`
	LastOf   []string `json:"multi_last,omitempty"`
	NextFor  string   `json:"next_by_subj,omitempty"`
	MaxBytes int      `json:"max_bytes,omitempty"` // of the answers; one comes in any case
}

// Stored is a message as a stream has it.
type Stored struct {
	Subject  string
	Sequence uint64
	Time     time.Time
	Header   natsgo.Header
	Data     []byte
}

// Store returns a message as its stream has it, of which a consumer has brought it.
func (d Delivery) Store(m *natsgo.Msg) Stored {
	return Stored{Subject: m.Subject, Sequence: d.Sequence, Time: time.Unix(0, d.Stored), Header: m.Header, Data: m.Data}
}

// ParseDirect reads a message that a replica sent as it is, its description in headers. There is none when
// it returns jetstream.ErrMsgNotFound.
func ParseDirect(m *natsgo.Msg) (Stored, error) {
	sequence := m.Header.Get("Nats-Sequence")
	if sequence == "" {
		switch status, description := m.Header.Get(statusHeader), m.Header.Get(descriptionHeader); status {
		case StatusNoResponders:
			return Stored{}, natsgo.ErrNoResponders
		case StatusNotFound:
			return Stored{}, jetstream.ErrMsgNotFound
		default:
			return Stored{}, Unexpected(status, description)
		}
	}
	number, err := strconv.ParseUint(sequence, 10, 64)
	if err != nil {
		return Stored{}, err
	}
	stored, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return Stored{}, err
	}
	return Stored{m.Header.Get("Nats-Subject"), number, stored, m.Header, m.Data}, nil
}

// Describes tells whether a header is one of those by which a replica describes the message that it sends.
func Describes(header string) bool {
	switch header {
	case "Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence":
		return true
	}
	return false
}

// EndOfBatch tells whether m ends the answers to a request for many messages, and whether they are
// complete: the server sends so many bytes at once, and no more.
func EndOfBatch(m *natsgo.Msg) (complete, ends bool) {
	status, _ := Status(m)
	return m.Header.Get("Nats-Num-Pending") == "0", status == StatusEndOfBatch
}

// Vanished tells whether an answer means that the message was replaced or deleted between being found and
// being read.
func Vanished(m *natsgo.Msg) bool {
	status, description := Status(m)
	return status == StatusNotFound && description == "Message Not Found"
}

// ParseStored reads a message that the leader sent as JSON.
func ParseStored(m *natsgo.Msg) (Stored, error) {
	if NoResponders(m) {
		return Stored{}, natsgo.ErrNoResponders
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return Stored{}, err
	}
	one := answer.Message
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return Stored{}, jetstream.ErrMsgNotFound
	case answer.Error != nil:
		return Stored{}, answer.Error
	case one == nil:
		return Stored{}, errors.New("the server's answer has no message")
	}
	if one.Data == nil { // it is empty, as in what is delivered
		one.Data = []byte{}
	}
	var header natsgo.Header
	if len(one.Header) > 0 {
		var err error
		if header, err = natsgo.DecodeHeadersMsg(one.Header); err != nil {
			return Stored{}, err
		}
	}
	return Stored{one.Subject, one.Sequence, one.Time, header, one.Data}, nil
}
