// Package report writes what a run of package sanity has found: for other programs
// (JSON), for CI systems (JUnit), and for people (HTML).
package report

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/csikit/csikit/sanity/internal/check"
)

// Report is what a run found. Its JSON form is for other programs: fields are
// added, never changed.
type Report struct {
	Command      string                `json:"command,omitempty"` // that made it
	Driver       string                `json:"driver,omitempty"`
	Version      string                `json:"version,omitempty"`
	Capabilities []string              `json:"capabilities,omitempty"`
	Endpoint     string                `json:"endpoint"`
	NodeEndpoint string                `json:"node_endpoint,omitempty"`
	Access       string                `json:"access"` // mount or block
	Only         []string              `json:"only,omitempty"`
	Started      time.Time             `json:"started"`
	Seconds      float64               `json:"seconds"`
	Counts       map[check.Verdict]int `json:"counts"`
	// Trouble says why the run is not whole.
	Trouble string         `json:"trouble,omitempty"`
	Results []check.Result `json:"results"`
}

// Count is how many results have a verdict.
func (r *Report) Count(v check.Verdict) (n int) {
	for i := range r.Results {
		if r.Results[i].Verdict == v {
			n++
		}
	}
	return n
}

// With gives the results of a verdict, in order.
func (r *Report) With(v check.Verdict) []check.Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(res check.Result) bool { return res.Verdict != v })
}

// End notes how long the run took and what it found.
func (r *Report) End() {
	r.Seconds = time.Since(r.Started).Seconds()
	r.Counts = map[check.Verdict]int{}
	for _, v := range check.Verdicts() {
		r.Counts[v] = r.Count(v)
	}
}

// OK tells whether nothing failed, and the run is whole.
func (r *Report) OK() bool { return r.Count(check.Fail) == 0 && r.Trouble == "" }

// WriteJSON writes the report for other programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// FirstLine is the line of a message that says most.
func FirstLine(message string) string {
	for line := range strings.Lines(message) {
		if strings.Contains(line, "rpc error: ") {
			return strings.TrimSpace(line)
		}
	}
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return line
}
