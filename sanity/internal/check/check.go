// Package check runs the checks of package sanity: it gives each a connection, a
// directory and a deadline of its own, writes down what was called, takes back what
// was made, and makes a result of whatever happens.
package check

import (
	"slices"
	"strings"
	"time"
)

// Verdict is what became of a check.
type Verdict string

// The verdicts.
const (
	// Fail: a clause of the spec is broken.
	Fail Verdict = "FAIL"
	// Warn: a SHOULD is broken, a CO in use would stumble, or csi-sanity asks for
	// more than the spec.
	Warn Verdict = "WARN"
	// NotApplicable: the driver does not advertise what the check is about.
	NotApplicable Verdict = "NOT APPLICABLE"
	// NotRun: something is missing here, which the message names.
	NotRun Verdict = "NOT RUN"
	// Pass: all that was looked at is as it should be.
	Pass Verdict = "PASS"
)

// Verdicts are all of them, the worst first.
func Verdicts() []Verdict { return []Verdict{Fail, Warn, NotRun, NotApplicable, Pass} }

// A Check is one thing that is looked at.
type Check struct {
	ID      string // H-05/one-name
	Title   string // what has to be so, in our words
	Clauses string // ids of clauses that it proves, separated by spaces
	// Needs lists what must be there, separated by spaces; see facts.has. a|b is
	// either.
	Needs string
	Run   func(*T)
}

// ClauseIDs are those that it proves.
func (c *Check) ClauseIDs() []string { return strings.Fields(c.Clauses) }

// Result is what became of a check.
type Result struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Verdict Verdict  `json:"verdict"`
	Clauses []string `json:"clauses,omitempty"` // that the check proves
	// Broken are the clauses that this driver breaks, of those or others.
	Broken    []string      `json:"broken,omitempty"`
	Message   string        `json:"message,omitempty"`
	Calls     []Call        `json:"calls,omitempty"` // the last ones, secrets taken out
	Left      []string      `json:"left,omitempty"`  // what could not be taken back
	Reproduce string        `json:"reproduce,omitempty"`
	Took      time.Duration `json:"took_ns"`
}

// Call is one RPC as the check saw it.
type Call struct {
	Method   string        `json:"method"`
	Request  string        `json:"request"`
	Code     string        `json:"code"`
	Response string        `json:"response,omitempty"` // or the message of an error
	Took     time.Duration `json:"took_ns"`
}

// Selected tells whether one of the words of only means the check: "H", "H-05" or
// "H-05/one-name". No words mean all.
func Selected(only []string, id string) bool {
	return len(only) == 0 || slices.ContainsFunc(only, func(o string) bool {
		rest, ok := strings.CutPrefix(id, o)
		return ok && (rest == "" || rest[0] == '/' || (o == "H" && rest[0] == '-'))
	})
}
