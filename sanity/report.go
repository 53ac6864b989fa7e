package sanity

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// spec is the outcome of one spec of csi-sanity.
type spec struct {
	name    string
	state   types.SpecState
	message string // why it failed or was skipped
	took    time.Duration
}

// readReport reads ginkgo's report. What failed outside of a spec is listed as a
// spec too.
func readReport(file string) ([]spec, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var suites []types.Report
	if err := json.Unmarshal(b, &suites); err != nil {
		return nil, err
	}
	var specs []spec
	ok := true
	for _, s := range suites {
		ok = ok && s.SuiteSucceeded
		for _, r := range s.SpecReports {
			if r.LeafNodeType == types.NodeTypeIt || r.State.Is(types.SpecStateFailureStates) {
				specs = append(specs, newSpec(&r))
			}
		}
		for _, reason := range s.SpecialSuiteFailureReasons {
			specs = append(specs, spec{name: "the suite", state: types.SpecStateFailed, message: reason})
		}
	}
	if len(specs) == 0 {
		return nil, fmt.Errorf("%s has no specs", file)
	}
	if !ok && !anyFailed(specs) {
		specs = append(specs, spec{name: "the suite", state: types.SpecStateFailed, message: "failed, and says nothing else"})
	}
	return specs, nil
}

func anyFailed(specs []spec) bool {
	for _, s := range specs {
		if s.state.Is(types.SpecStateFailureStates) {
			return true
		}
	}
	return false
}

func newSpec(r *types.SpecReport) spec {
	texts := append(slices.Clone(r.ContainerHierarchyTexts), r.LeafNodeText)
	if r.LeafNodeType != types.NodeTypeIt {
		texts = append(texts, r.LeafNodeType.String())
	}
	s := spec{name: strings.Join(texts, " "), state: r.State, took: r.RunTime}
	switch {
	case r.State.Is(types.SpecStatePending):
		s.message = "csi-sanity has it pending"
	case r.State.Is(types.SpecStateSkipped):
		s.message = r.Failure.Message
	case r.State.Is(types.SpecStateFailureStates):
		f := r.Failure
		s.message = fmt.Sprintf("%v: %s", r.State, f.Message)
		if f.ForwardedPanic != "" {
			s.message += ": " + f.ForwardedPanic
		}
		s.message += fmt.Sprintf("\n  at %s:%d\n%s", f.Location.FileName, f.Location.LineNumber, r.CapturedGinkgoWriterOutput)
	}
	return s
}

// report makes a subtest of each spec.
func report(t *testing.T, specs []spec) {
	t.Helper()
	for _, s := range specs {
		t.Run(s.name, func(t *testing.T) {
			switch {
			case s.state.Is(types.SpecStatePassed):
				t.Logf("took %v", s.took.Round(time.Millisecond))
			case s.skipped():
				t.Skip(s.message)
			default:
				t.Error(s.message)
			}
		})
	}
}

func (s spec) skipped() bool { return s.state.Is(types.SpecStateSkipped | types.SpecStatePending) }
