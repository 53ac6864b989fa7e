package main

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"time"

	"github.com/csikit/csikit/sanity"
)

// report is the outcome of a check. Its JSON form is for other programs: fields
// are added, never changed.
type report struct {
	Endpoint     string       `json:"endpoint"`
	NodeEndpoint string       `json:"node_endpoint,omitempty"`
	Access       string       `json:"access"`
	Started      string       `json:"started"`
	Seconds      float64      `json:"seconds"`
	Passed       int          `json:"passed"`
	Failed       int          `json:"failed"`
	Skipped      int          `json:"skipped"`
	Specs        []reportSpec `json:"specs"`

	started time.Time
	took    time.Duration
}

type reportSpec struct {
	Name    string         `json:"name"`
	Outcome sanity.Outcome `json:"outcome"`
	Seconds float64        `json:"seconds"`
	Message string         `json:"message,omitempty"`
}

func (r *report) add(s sanity.Spec) {
	switch s.Outcome {
	case sanity.Passed:
		r.Passed++
	case sanity.Skipped:
		r.Skipped++
	default:
		r.Failed++
	}
	r.Specs = append(r.Specs, reportSpec{s.Name, s.Outcome, s.Took.Seconds(), s.Message})
}

func (r *report) writeJSON(w io.Writer) error {
	c := *r
	c.Started, c.Seconds = r.started.UTC().Format(time.RFC3339), r.took.Seconds()
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(&c)
}

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
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

func (r *report) writeJUnit(w io.Writer) error {
	s := junitSuite{
		Name: "csi-sanity." + r.Access, Tests: len(r.Specs), Failures: r.Failed, Skipped: r.Skipped,
		Time: r.took.Seconds(), Timestamp: r.started.UTC().Format("2006-01-02T15:04:05"),
	}
	for _, spec := range r.Specs {
		c := junitCase{Class: "csi-sanity." + r.Access, Name: spec.Name, Time: spec.Seconds}
		m := &junitMessage{Message: firstLine(spec.Message)}
		switch spec.Outcome {
		case sanity.Passed:
		case sanity.Skipped:
			c.Skipped = m
		default:
			m.Text = spec.Message
			c.Failure = m
		}
		s.Cases = append(s.Cases, c)
	}
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
