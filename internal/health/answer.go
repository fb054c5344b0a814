package health

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// answer is that of a probe. With a Reason it is 503.
type answer struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	*details
}

// details are for those who may know them. Times are in seconds.
type details struct {
	Server       string        `json:"server"`
	Connected    bool          `json:"connected"`
	Outage       float64       `json:"outage_seconds"`
	RTT          float64       `json:"rtt_seconds"`
	Reconnects   uint64        `json:"reconnects"`
	Error        string        `json:"error,omitempty"`
	Warnings     []string      `json:"warnings,omitempty"`
	Consumptions []consumption `json:"consumptions,omitempty"`
	Discovery    *named        `json:"discovery,omitempty"`
}

// consumption is one that runs, or is required and does not.
type consumption struct {
	Name     string `json:"name"`
	Healthy  bool   `json:"healthy"`
	Required bool   `json:"required"`
}

// named is what a discovery has named last.
type named struct {
	Servers []string `json:"servers"`
	Age     float64  `json:"age_seconds"`
}

// handler answers GET and HEAD at the names of the probes.
func handler(probes map[string]func(context.Context) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := probes[strings.Trim(r.URL.Path, "/")]
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		switch {
		case probe == nil:
			http.NotFound(w, r)
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			header.Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		a, status := probe(r.Context()), http.StatusOK
		a.Status = "ok"
		if a.Reason != "" {
			a.Status, status = "unavailable", http.StatusServiceUnavailable
		}
		body, err := json.Marshal(a)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		header.Set("Content-Type", "application/json")
		header.Set("Content-Length", strconv.Itoa(len(body)+1))
		w.WriteHeader(status)
		if r.Method == http.MethodGet {
			_, _ = w.Write(append(body, '\n')) // who has gone needs no answer
		}
	})
}
