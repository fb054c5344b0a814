// Package api takes orders over HTTP and tells what became of them.
package api

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/order"
)

const maxBody = 64 << 10

type api struct{ bus *order.Bus }

// Handler serves
//
//	POST /orders                places an order: 202 once it is stored
//	GET  /orders/{id}           200 when it is confirmed, 404 until then
//	GET  /orders/{id}/receipt   its receipt
//
// The header Idempotency-Key is the order's ID. A caller who is told 503, or nothing at all, sends the same again.
func Handler(bus *order.Bus) http.Handler {
	a, mux := &api{bus}, http.NewServeMux()
	mux.HandleFunc("POST /orders", a.place)
	mux.HandleFunc("GET /orders/{id}", a.confirmed)
	mux.HandleFunc("GET /orders/{id}/receipt", a.receipt)
	return mux
}

func (a *api) place(w http.ResponseWriter, r *http.Request) {
	var o order.Order
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&o)
	if o.ID = r.Header.Get("Idempotency-Key"); o.ID == "" {
		o.ID = rand.Text()
	}
	if err := errors.Join(err, o.Validate()); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	trace.SpanFromContext(r.Context()).SetAttributes(order.ID.String(o.ID))
	// With its ID as the message ID an order that comes again, within the stream's two minutes, is stored once.
	if _, err := a.bus.PublishJSONToStream(r.Context(), order.Placed, o, jetstream.WithMsgID(o.ID)); err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Location", "/orders/"+o.ID)
	w.WriteHeader(http.StatusAccepted)
}

func (a *api) confirmed(w http.ResponseWriter, r *http.Request) {
	o, _, err := nats.GetJSON[order.Order](r.Context(), a.bus.Confirmed, r.PathValue("id"))
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o) // or the caller has gone
}

func (a *api) receipt(w http.ResponseWriter, r *http.Request) {
	receipt, err := a.bus.Receipts.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		fail(w, r, err)
		return
	}
	defer func() { _ = receipt.Close() }()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := io.Copy(w, receipt); err != nil {
		panic(http.ErrAbortHandler) // so that the caller does not take half of it for the whole
	}
}

// fail answers what the bus did not do: 503 where the same call may succeed later.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	switch kind := nats.KindOf(err); {
	case kind == nats.KindNotFound:
		status = http.StatusNotFound
	case kind == nats.KindInvalidArgument:
		status = http.StatusBadRequest
	case nats.IsRetryable(err), nats.IsUncertain(err):
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	if status >= http.StatusInternalServerError {
		slog.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
	}
	http.Error(w, http.StatusText(status), status)
}
