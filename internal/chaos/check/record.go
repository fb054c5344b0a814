package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Record is a call of a worker, or something that came to it.
type Record struct {
	Worker string        `json:"worker"`          // and its life: w1.2
	Op     string        `json:"op"`              // the load and what it did: stream/publish
	Key    string        `json:"key,omitempty"`   // what is in order
	ID     string        `json:"id,omitempty"`    // of the message, or the value
	Seq    uint64        `json:"seq,omitempty"`   // the server's number: sequence, revision, token
	N      uint64        `json:"n,omitempty"`     // the worker's or the delivery's
	Begin  int64         `json:"begin"`           // Unix nanoseconds, of the one clock of the machine
	End    int64         `json:"end"`             //
	Limit  time.Duration `json:"limit,omitempty"` // what the call was given; 0 for what is no call
	Stall  time.Duration `json:"stall,omitempty"` // the longest that the process was held up meanwhile
	Held   time.Duration `json:"held,omitempty"`  // how long it was in all, from a Lease before on
	Fate   Fate          `json:"fate,omitempty"`
	Kinds  []string      `json:"kinds,omitempty"` // the names of the sentinels that the error is
	Err    string        `json:"err,omitempty"`
}

// Fate is what a call's error says of its effect.
type Fate string

// The fates.
const (
	Done  Fate = ""
	Not   Fate = "not"   // for certain
	Maybe Fate = "maybe" // it may have had one
)

// Load is the part of the library that the record is about.
func (r *Record) Load() string {
	load, _, _ := strings.Cut(r.Op, "/")
	return load
}

func (r *Record) String() string {
	return fmt.Sprintf("%s %s %s %s seq %d n %d at %s for %v", r.Worker, r.Op, r.Key, r.ID, r.Seq, r.N,
		time.Unix(0, r.Begin).UTC().Format("15:04:05.000"), time.Duration(r.End-r.Begin).Round(time.Millisecond))
}

// History is what all workers wrote, each in the order of its file.
type History []Record

// ReadHistory reads the *.jsonl of a directory. The last line of a worker that was killed may be cut off.
func ReadHistory(dir string) (History, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	var h History
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var r Record
			if json.Unmarshal(lines.Bytes(), &r) == nil {
				h = append(h, r)
			}
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// of returns the records of one kind.
func (h History) of(op string) (found History) {
	for _, r := range h {
		if r.Op == op {
			found = append(found, r)
		}
	}
	return found
}

// killed are the lives that had no time to write of their end: what they began may have been done.
func (h History) killed() map[string]bool {
	killed := map[string]bool{}
	for _, r := range h {
		if _, ok := killed[r.Worker]; !ok && r.Worker != "" {
			killed[r.Worker] = true
		}
		if r.Op == "life/close" {
			killed[r.Worker] = false
		}
	}
	return killed
}
