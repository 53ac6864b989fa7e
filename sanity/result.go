package sanity

import (
	"fmt"
	"time"

	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity/internal/check"
	"github.com/csikit/csikit/sanity/internal/report"
)

// Result is what became of a check: its ID (H-05/one-name, or csi-sanity/...),
// Title, Verdict, the Clauses of the spec that it proves and those that are
// Broken, a Message, the last Calls with their answers, what is Left, the command
// that runs it again (Reproduce), and how long it Took.
type Result = check.Result

// Call is an RPC of a Result, without secrets.
type Call = check.Call

// Verdict is what became of a check: one of the constants.
type Verdict = check.Verdict

// The verdicts. Only Fail makes a run fail.
const (
	Fail          = check.Fail
	Warn          = check.Warn
	NotApplicable = check.NotApplicable
	NotRun        = check.NotRun
	Pass          = check.Pass
)

// Listener is told of each check when it begins and when it has ended.
type Listener = check.Listener

// Report is what a run found: what the driver says of itself, the Results, and
// WriteJSON, WriteJUnit, WriteHTML.
type Report = report.Report

func newReport(cfg *Config) *Report {
	r := &Report{Started: time.Now(), Endpoint: csiclient.Endpoint(cfg.controllerEndpoint()), Access: "mount", Only: cfg.Only}
	if cfg.ControllerEndpoint != "" {
		r.NodeEndpoint = csiclient.Endpoint(cfg.Endpoint)
	}
	if cfg.Block {
		r.Access = "block"
	}
	return r
}

// csiSanity is the first block of a run, and how its results begin.
const csiSanity = "csi-sanity"

// result is a spec of csi-sanity as the result of a check.
func (s *spec) result(cfg *Config) Result {
	r := Result{ID: csiSanity + "/" + s.Name, Title: s.Name, Message: s.Message, Took: s.Took}
	r.Reproduce = cfg.reproduce(csiSanity)
	switch s.Outcome {
	case passed:
		r.Verdict = Pass
	case skipped:
		r.Verdict = NotApplicable
	default:
		r.Verdict = Fail
		if why := asksMore(s); why != "" {
			r.Verdict, r.Message = Warn, why+"\n"+s.Message
		}
	}
	return r
}

// reproduce is the command that runs a check of this run again.
func (c *Config) reproduce(id string) string {
	if c.Reproduce != nil {
		return c.Reproduce(id)
	}
	return fmt.Sprintf("csikit check --endpoint %s --only %s", c.Endpoint, id)
}
