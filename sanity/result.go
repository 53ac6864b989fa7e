package sanity

import (
	"fmt"
	"strings"
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

// asksMore says why a spec of csi-sanity that fails is no failure of the driver:
// csi-test v5.6.0 asks for more than the spec, and valid drivers fail it.
func asksMore(s *spec) string {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if !strings.Contains(s.Name+"\n"+s.Message, p) {
				return false
			}
		}
		return true
	}
	if has("CreateVolume", "different capacity", "OutOfRange") {
		return "csi-sanity wants volumes of exactly the size that it is given, and the driver has none of that size: say another (--size)"
	}
	invalid := strings.Contains(s.Message, "InvalidArgument")
	switch {
	case has("GetPluginInfo should return appropriate information", "identity.go:"):
		return "csi-sanity's pattern for names is not the spec's: it refuses those that begin or end with a digit (H-11/plugin-info holds to the spec's)"
	case has("ExpandVolume", "should work", "to equal"), has("NodeExpandVolume", "should work", "to equal"):
		return "csi-sanity wants exactly the size that it asked for; the spec lets a driver round up (H-15 holds to the spec)"
	case invalid && has("NodeGetVolumeStats should fail when volume"), invalid && has("NodeExpandVolume should fail when volume is not found"):
		return "csi-sanity sends the relative path some/path, which a driver may refuse as such"
	case invalid && has("VolumeGroupSnapshot", "invalid volume id"):
		return "csi-sanity sends no snapshot_ids, which the spec requires"
	case invalid && has("ModifyVolume", "volume does not exist"), invalid && has("ModifyVolume", "should modify"):
		return "csi-sanity sends no mutable_parameters, which the spec requires"
	}
	return ""
}

// reproduce is the command that runs a check of this run again.
func (c *Config) reproduce(id string) string {
	if c.Reproduce != nil {
		return c.Reproduce(id)
	}
	return fmt.Sprintf("csikit check --endpoint %s --only %s", c.Endpoint, id)
}
