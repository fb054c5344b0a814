package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/api"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/order"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func serve(t *testing.T) (http.Handler, *order.Bus, *natstest.Server) {
	t.Helper()
	server := natstest.RunServer(t)
	client := natstest.Connect(t, server, func(cfg *nats.Config) { cfg.RequestTimeout = 5 * time.Second })
	bus, err := order.Declare(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	return api.Handler(bus), bus, server
}

// call returns status, body and headers of an answer.
func call(t *testing.T, h http.Handler, method, path, id, body string) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Idempotency-Key", id)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	answer, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(answer), w.Result().Header
}

func TestAnOrderIsStoredOnce(t *testing.T) {
	t.Parallel()
	h, bus, _ := serve(t)
	for range 2 {
		status, _, header := call(t, h, "POST", "/orders", "a-1", `{"item":"apple","quantity":2}`)
		if status != http.StatusAccepted || header.Get("Location") != "/orders/a-1" {
			t.Fatalf("%d, %v", status, header)
		}
	}
	if status, _, header := call(t, h, "POST", "/orders", "", `{"item":"apple","quantity":2}`); status != http.StatusAccepted {
		t.Fatalf("%d, %v", status, header)
	}
	info, err := bus.GetStreamInfo(t.Context(), order.Stream)
	if err != nil || info.State.Msgs != 2 {
		t.Errorf("%d orders are stored, %v", info.State.Msgs, err)
	}
}

func TestWhatIsWrongIsRefused(t *testing.T) {
	t.Parallel()
	h, _, _ := serve(t)
	for _, c := range []struct{ id, body, answer string }{
		{"a", `{"item":"apple"`, "unexpected EOF"},
		{"a", `{"item":"apple"}`, "quantity"},
		{"a", `{"quantity":1}`, "item"},
		{"a.b", `{"item":"apple","quantity":1}`, "ID"},
		{"a", `{"item":"` + strings.Repeat("a", 1<<20) + `","quantity":1}`, "too large"},
	} {
		if status, answer, _ := call(t, h, "POST", "/orders", c.id, c.body); status != http.StatusBadRequest || !strings.Contains(answer, c.answer) {
			t.Errorf("%.40s: %d, %s", c.body, status, answer)
		}
	}
}

func TestWhatBecameOfAnOrder(t *testing.T) {
	t.Parallel()
	h, bus, _ := serve(t)
	for _, path := range []string{"/orders/a", "/orders/a/receipt"} {
		if status, _, _ := call(t, h, "GET", path, "", ""); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	if _, err := bus.Confirmed.PutJSON(t.Context(), "a", order.Order{ID: "a", Item: "apple", Quantity: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Receipts.PutString(t.Context(), "a", "a receipt"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/orders/a": `{"id":"a","item":"apple","quantity":2}` + "\n", "/orders/a/receipt": "a receipt"} {
		if status, answer, _ := call(t, h, "GET", path, "", ""); status != http.StatusOK || answer != want {
			t.Errorf("%s: %d, %s", path, status, answer)
		}
	}
}

func TestAnOutageIsTold(t *testing.T) {
	t.Parallel()
	h, _, server := serve(t)
	server.Stop()
	status, _, header := call(t, h, "POST", "/orders", "a", `{"item":"apple","quantity":2}`)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("%d, %v", status, header)
	}
	server.Restart()
	if status, _, _ := call(t, h, "POST", "/orders", "a", `{"item":"apple","quantity":2}`); status != http.StatusAccepted {
		t.Errorf("after the outage: %d", status)
	}
}
