package health

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// Answer is that of a probe. With a Reason it is 503.
type Answer struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	*Details
}

// Details are for those who may know them. Times are in seconds.
type Details struct {
	Server       string        `json:"server"`
	Connected    bool          `json:"connected"`
	Outage       float64       `json:"outage_seconds"`
	RTT          float64       `json:"rtt_seconds"`
	Reconnects   uint64        `json:"reconnects"`
	Error        string        `json:"error,omitempty"`
	Warnings     []string      `json:"warnings,omitempty"`
	Consumptions []Consumption `json:"consumptions,omitempty"`
	Discovery    *Discovery    `json:"discovery,omitempty"`
}

// Consumption is one that runs, or is required and does not.
type Consumption struct {
	Name     string `json:"name"`
	Healthy  bool   `json:"healthy"`
	Required bool   `json:"required"`
}

// Discovery is what it has named last.
type Discovery struct {
	Servers []string `json:"servers"`
	Age     float64  `json:"age_seconds"`
}

// Handler answers GET and HEAD at the names of the probes.
func Handler(probes map[string]func(context.Context) Answer) http.Handler {
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
		answer, status := probe(r.Context()), http.StatusOK
		answer.Status = "ok"
		if answer.Reason != "" {
			answer.Status, status = "unavailable", http.StatusServiceUnavailable
		}
		body, err := json.Marshal(answer)
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
