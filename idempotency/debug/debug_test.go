package debug

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/internal/deptest"
	"github.com/csikit/csikit/internal/testenv"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/idempotency":         "what it shows",
		"github.com/csikit/csikit/internal/faultpoint": "comes with it",
	})
	deptest.Never(t, map[string]string{"text/template": "it turns off the linker's removal of unused methods"})
}

// at runs an operation that is at a resource until the test ends it.
func at(table *idempotency.Table, q *idempotency.Queue, name string, end <-chan struct{}) {
	op := idempotency.Operation{Name: name, Owner: "request 7", Keys: []idempotency.Key{idempotency.Exclusive(name)}}
	go func() {
		_, _ = idempotency.Do(context.Background(), table, op, func(ctx context.Context) (int, error) {
			leave, err := q.Enter(ctx, "vg0")
			if err != nil {
				return 0, err
			}
			defer leave()
			idempotency.FromContext(ctx).Progress("copied 1 of 3 GiB")
			<-end
			return 0, nil
		})
	}()
	synctest.Wait()
}

func TestHandler(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		table, q, end := idempotency.NewTable(nil), idempotency.NewQueue(nil), make(chan struct{})
		h := Handler(table, q, nil)
		get := func(target, accept string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		if got := get("/", "").Body.String(); got != "0 operations\n" {
			t.Errorf("nothing runs: %q", got)
		}
		if got := get("/?format=json", "").Body.String(); !strings.Contains(got, `"operations": []`) {
			t.Errorf("nothing runs: %s", got)
		}
		at(table, q, "CloneVolume vol-1", end)
		time.Sleep(time.Minute)
		at(table, q, "DeleteVolume vol\n2", end)
		time.Sleep(time.Second)

		w := get("/", "text/html")
		want := strings.Join([]string{
			`2 operations`,
			`AGE   IDLE  WAITERS  STUCK  OPERATION             STEP               ASKED FOR BY`,
			`1m1s  1m1s  1        -      CloneVolume vol-1     copied 1 of 3 GiB  request 7`,
			`1s    1s    1        -      "DeleteVolume vol\n2"  waiting for vg0    request 7`,
		}, "\n")
		got := w.Body.String()
		for l := range strings.SplitSeq(want, "\n") {
			if !strings.Contains(strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(l), " ")) {
				t.Errorf("no line %q in\n%s", l, got)
			}
		}
		if !strings.Contains(got, "vg0: 1 of 1 inside, 1 wait") || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%v\n%s", w.Header(), got)
		}

		for _, w := range []*httptest.ResponseRecorder{get("/?format=json", ""), get("/", "application/json")} {
			var d Dump
			if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
				t.Fatalf("%v\n%s", err, w.Body)
			}
			if len(d.Operations) != 2 || d.Operations[0].Step != "copied 1 of 3 GiB" || d.Operations[0].Waiters != 1 ||
				len(d.Resources) != 1 || d.Resources[0].Waiting[0].Operation != "DeleteVolume vol\n2" {
				t.Errorf("dump %+v", d)
			}
		}
		close(end)
		synctest.Wait()
	})
}

func TestOnlyReads(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
	Handler(idempotency.NewTable(nil)).ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func ExampleHandler() {
	table := idempotency.NewTable(nil)
	mux := http.NewServeMux()
	mux.Handle("/debug/operations", Handler(table))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/debug/operations", nil))
	fmt.Print(w.Body)
	// Output: 0 operations
}
