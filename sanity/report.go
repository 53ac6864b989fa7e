package sanity

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// Outcome is what became of a spec.
type Outcome string

// The outcomes of a spec.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Spec is one spec of csi-sanity that was run or skipped.
type Spec struct {
	Name    string
	Outcome Outcome
	Message string // why it failed or was skipped
	Took    time.Duration
}

// readReport reads ginkgo's report. What failed outside of a spec is listed as a
// spec too.
func readReport(file string) ([]Spec, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var suites []types.Report
	if err := json.Unmarshal(b, &suites); err != nil {
		return nil, err
	}
	var specs []Spec
	ok := true
	for _, s := range suites {
		ok = ok && s.SuiteSucceeded
		for _, r := range s.SpecReports {
			if counts(&r) {
				specs = append(specs, newSpec(&r))
			}
		}
		for _, reason := range s.SpecialSuiteFailureReasons {
			specs = append(specs, Spec{Name: "the suite", Outcome: Failed, Message: reason})
		}
	}
	if len(specs) == 0 {
		return nil, fmt.Errorf("%s has no specs", file)
	}
	if !ok && !slices.ContainsFunc(specs, func(s Spec) bool { return s.Outcome == Failed }) {
		specs = append(specs, Spec{Name: "the suite", Outcome: Failed, Message: "failed, and says nothing else"})
	}
	return specs, nil
}

// counts tells specs, and what failed around them, from ginkgo's other nodes.
func counts(r *types.SpecReport) bool {
	return r.LeafNodeType == types.NodeTypeIt || r.State.Is(types.SpecStateFailureStates)
}

func newSpec(r *types.SpecReport) Spec {
	s := Spec{Name: specName(r), Outcome: Failed, Took: r.RunTime}
	switch {
	case r.State.Is(types.SpecStatePassed):
		s.Outcome = Passed
	case r.State.Is(types.SpecStatePending):
		s.Outcome, s.Message = Skipped, "csi-sanity has it pending"
	case r.State.Is(types.SpecStateSkipped):
		s.Outcome, s.Message = Skipped, r.Failure.Message
	default:
		f := r.Failure
		s.Message = fmt.Sprintf("%v: %s", r.State, f.Message)
		if f.ForwardedPanic != "" {
			s.Message += ": " + f.ForwardedPanic
		}
		s.Message += fmt.Sprintf("\n  at %s:%d\n%s", f.Location.FileName, f.Location.LineNumber, r.CapturedGinkgoWriterOutput)
	}
	return s
}

func specName(r *types.SpecReport) string {
	texts := append(slices.Clone(r.ContainerHierarchyTexts), r.LeafNodeText)
	if r.LeafNodeType != types.NodeTypeIt {
		texts = append(texts, r.LeafNodeType.String())
	}
	return strings.Join(texts, " ")
}
