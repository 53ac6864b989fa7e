package report

import (
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/sanity/internal/check"
)

// sample has all that a result can have, of a driver that says anything.
func sample() *Report {
	r := &Report{Driver: "a.example.com", Version: "1", Endpoint: "unix:///s", Access: "mount", Started: time.Now(), Trouble: "half <b>", Capabilities: []string{"X", "Y"}}
	for i, v := range check.Verdicts() {
		r.Results = append(r.Results, check.Result{
			ID: "H-0" + string(rune('1'+i)) + "/a <b> & \x00\xff", Title: "It is <so>", Verdict: v, Clauses: []string{"CV-01"}, Broken: []string{"CV-01", "CV-02"},
			Message: "]]> \x1b[31m \xff <script>alert(1)</script>\nmore", Left: []string{"volume v"}, Reproduce: "csikit check --only H-01", Took: 90 * time.Second,
			Calls: []check.Call{{Method: "Probe", Request: `{"a":"<i>"}`, Code: "OK", Response: "{}"}},
		})
	}
	r.End()
	return r
}

// TestReportsOfAnything: what a driver says may be no XML and no UTF-8.
func TestReportsOfAnything(t *testing.T) {
	r := sample()
	var b strings.Builder
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || len(back.Results) != 5 || back.Counts[check.Fail] != 1 || back.OK() {
		t.Errorf("JSON: %v, %+v", err, back.Counts)
	}
	b.Reset()
	if err := r.WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	var x junitSuites
	if err := xml.Unmarshal([]byte(b.String()), &x); err != nil || x.Suites[0].Failures != 2 || x.Suites[0].Skipped != 2 || x.Suites[0].Tests != 6 {
		t.Errorf("JUnit: %v, %+v", err, x)
	}
}

// TestFolded: a long command is one that a shell takes, in lines.
func TestFolded(t *testing.T) {
	long := "csikit check --endpoint unix:///run/csi/a-long-name/csi.sock --log /var/log/driver.log --only H-05/one-name"
	if got := folded(long); strings.ReplaceAll(got, " \\\n ", "") != long || !strings.Contains(got, "\n") {
		t.Errorf("%q", got)
	}
	for _, whole := range []string{"csikit check --only H-05", strings.Replace(long, "--log", "--restart 'a --b' --log", 1)} {
		if got := folded(whole); got != whole {
			t.Errorf("%q", got)
		}
	}
}

// TestPage: failures first, with all that they show; nothing from elsewhere, and
// nothing that a driver says becomes a part of the page.
func TestPage(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteHTML(&b, func(id string) string { return "words of " + id }); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"It is &lt;so&gt;", "words of CV-02", "csikit check --only H-01", "Left behind: volume v", "1 min 30 s", "The run is not whole", "viewport"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	if f, w := strings.Index(page, "What is broken"), strings.Index(page, "Warnings: "); f < 0 || w < f || strings.Index(page, "Everything") < w {
		t.Error("failures are not first")
	}
	for _, not := range []string{"<script", "src=", `href="h`, `href="/`, "url(", "@import", "<b> &"} {
		if strings.Contains(page, not) {
			t.Errorf("the page has %q", not)
		}
	}
}
