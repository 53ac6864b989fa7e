// Package debug shows over HTTP what a driver is doing: the operations of a
// csidriver.Driver, or of an [idempotency.Table], and the queues before its resources.
//
//	mux.Handle("/debug/operations", debug.Handler(driver, groups))
//
// It is a package of its own so that only who serves HTTP has net/http in his
// driver. What it shows are names of volumes, steps and request ids, and no
// requests: still it belongs on an address that only operators reach.
package debug

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/csikit/csikit/idempotency"
)

// Dump is the JSON that Handler serves. Fields are added and not changed.
type Dump struct {
	Time       time.Time   `json:"time"`
	Operations []Operation `json:"operations"` // the oldest call first
	Resources  []Resource  `json:"resources"`  // by queue and name
}

// Operation is one that runs.
type Operation struct {
	Name         string    `json:"name"`
	Owner        string    `json:"owner,omitempty"` // a request id
	Step         string    `json:"step,omitempty"`
	Started      time.Time `json:"started"`
	LastProgress time.Time `json:"lastProgress"`
	Waiters      int       `json:"waiters"` // calls that wait for its end
	Stuck        bool      `json:"stuck,omitempty"`
}

// Resource is one where somebody is or waits.
type Resource struct {
	Name    string `json:"name"`
	Limit   int    `json:"limit"`
	Inside  []Turn `json:"inside"`
	Waiting []Turn `json:"waiting"` // the next one first
}

// Turn is who is at a resource, or waits for it.
type Turn struct {
	Operation string    `json:"operation,omitempty"`
	Owner     string    `json:"owner,omitempty"`
	Client    string    `json:"client,omitempty"`
	Since     time.Time `json:"since"`
}

// Table is an [idempotency.Table], or a csidriver.Driver.
type Table interface {
	Running() []idempotency.Info
}

// Handler serves what runs now, as text for people, and as a [Dump] in JSON to who
// accepts application/json or asks with ?format=json. It answers GET and HEAD.
func Handler(table Table, queues ...*idempotency.Queue) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		d := Now(table, queues...)
		var err error
		if wantsJSON(r) {
			w.Header().Set("Content-Type", "application/json")
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			err = e.Encode(d)
		} else {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			err = d.Write(w)
		}
		_ = err // the client has gone
	})
}

func wantsJSON(r *http.Request) bool {
	if f := r.URL.Query().Get("format"); f != "" {
		return f == "json"
	}
	return strings.Contains(r.Header.Get("Accept"), "application/json")
}

// Now is what runs now.
func Now(table Table, queues ...*idempotency.Queue) *Dump {
	d := &Dump{Time: time.Now(), Operations: []Operation{}, Resources: []Resource{}}
	for _, o := range table.Running() {
		d.Operations = append(d.Operations, Operation{o.Name, o.Owner, o.Step, o.Started, o.LastProgress, o.Waiters, o.Stuck})
	}
	for _, q := range queues {
		for _, r := range q.Running() {
			d.Resources = append(d.Resources, Resource{r.Resource, r.Limit, turns(r.Inside), turns(r.Waiting)})
		}
	}
	return d
}

func turns(all []idempotency.QueueTurn) []Turn {
	out := make([]Turn, 0, len(all))
	for _, t := range all {
		out = append(out, Turn{t.Operation, t.Owner, t.Client, t.Since})
	}
	return out
}

// Write writes the dump as text. What was named from outside is quoted where it
// would break a line.
func (d *Dump) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%d operations\n", len(d.Operations))
	if len(d.Operations) > 0 {
		fmt.Fprintln(t, "AGE\tIDLE\tWAITERS\tSTUCK\tOPERATION\tSTEP\tASKED FOR BY")
	}
	for _, o := range d.Operations {
		stuck := "-"
		if o.Stuck {
			stuck = "stuck"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", d.since(o.Started), d.since(o.LastProgress), o.Waiters, stuck,
			line(o.Name), line(o.Step), line(o.Owner))
	}
	for _, r := range d.Resources {
		fmt.Fprintf(t, "\n%s: %d of %d inside, %d wait\n", line(r.Name), len(r.Inside), r.Limit, len(r.Waiting))
		for _, in := range r.Inside {
			fmt.Fprintf(t, "inside\t%s\t%s\t%s\t%s\n", d.since(in.Since), line(in.Operation), line(in.Client), line(in.Owner))
		}
		for _, in := range r.Waiting {
			fmt.Fprintf(t, "waits\t%s\t%s\t%s\t%s\n", d.since(in.Since), line(in.Operation), line(in.Client), line(in.Owner))
		}
	}
	return t.Flush()
}

func (d *Dump) since(t time.Time) time.Duration { return d.Time.Sub(t).Round(time.Millisecond) }

// line is s in one cell of one line.
func line(s string) string {
	if s == "" {
		return "-"
	}
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}
