package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/csikit/csikit/sanity/internal/check"
)

// JUnit's form, as CI systems read it.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Errors    int         `xml:"errors,attr"`
		Skipped   int         `xml:"skipped,attr"`
		Time      float64     `xml:"time,attr"`
		Timestamp string      `xml:"timestamp,attr"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    float64       `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes the report for CI systems. What they do not know, a warning, is
// a case that passed and has something to say.
func (r *Report) WriteJUnit(w io.Writer) error {
	name := "csikit." + r.Access
	s := junitSuite{
		Name: name, Failures: r.Count(check.Fail), Skipped: r.Count(check.NotRun) + r.Count(check.NotApplicable),
		Time: r.Seconds, Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05"),
	}
	for i := range r.Results {
		s.Cases = append(s.Cases, junit(name, &r.Results[i]))
	}
	if r.Trouble != "" {
		s.Failures++
		s.Cases = append(s.Cases, junitCase{Class: name, Name: "the run", Failure: &junitMessage{FirstLine(r.Trouble), r.Trouble}})
	}
	s.Tests = len(s.Cases)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suites: []junitSuite{s}}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func junit(class string, res *check.Result) junitCase {
	family, _, _ := strings.Cut(res.ID, "/")
	c := junitCase{Class: class + "." + family, Name: res.ID, Time: res.Took.Seconds()}
	m := &junitMessage{Message: FirstLine(res.Message)}
	switch res.Verdict {
	case check.Pass:
	case check.Warn:
		c.Out = "WARN: " + text(res)
	case check.Fail:
		m.Text = text(res)
		c.Failure = m
	default:
		m.Message = string(res.Verdict) + ": " + m.Message
		c.Skipped = m
	}
	return c
}

// text is a result with all that it shows.
func text(res *check.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", res.Title, res.Message)
	if len(res.Broken) > 0 {
		fmt.Fprintf(&b, "clauses: %s\n", strings.Join(res.Broken, ", "))
	}
	for _, c := range res.Calls {
		fmt.Fprintf(&b, "%s %s\n  %s %s\n", c.Method, c.Request, c.Code, c.Response)
	}
	for _, l := range res.Left {
		fmt.Fprintf(&b, "left behind: %s\n", l)
	}
	fmt.Fprintf(&b, "again: %s\n", res.Reproduce)
	return b.String()
}

// Text is a result with all that it shows, in lines.
func Text(res *check.Result) string { return text(res) }
