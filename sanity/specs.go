package sanity

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// outcome is what became of a spec.
type outcome string

// The outcomes of a spec.
const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"
)

// spec is one spec of csi-sanity that was run or skipped.
type spec struct {
	Name    string
	Outcome outcome
	Message string // why it failed or was skipped
	Took    time.Duration
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
	ok, excused := true, false
	for _, s := range suites {
		ok = ok && s.SuiteSucceeded
		for _, r := range s.SpecReports {
			if counts(&r) {
				specs = append(specs, newSpec(&r))
				excused = excused || excuse(&r)
			}
		}
		for _, reason := range s.SpecialSuiteFailureReasons {
			specs = append(specs, spec{Name: "the suite", Outcome: failed, Message: reason})
		}
	}
	if len(specs) == 0 {
		return nil, fmt.Errorf("%s has no specs", file)
	}
	if !ok && !excused && !slices.ContainsFunc(specs, func(s spec) bool { return s.Outcome == failed }) {
		specs = append(specs, spec{Name: "the suite", Outcome: failed, Message: "failed, and says nothing else"})
	}
	return specs, nil
}

// counts tells specs, and what failed around them, from ginkgo's other nodes.
func counts(r *types.SpecReport) bool {
	return r.LeafNodeType == types.NodeTypeIt || r.State.Is(types.SpecStateFailureStates)
}

func newSpec(r *types.SpecReport) spec {
	s := spec{Name: specName(r), Outcome: failed, Took: r.RunTime}
	switch {
	case r.State.Is(types.SpecStatePassed):
		s.Outcome = passed
	case r.State.Is(types.SpecStatePending):
		s.Outcome, s.Message = skipped, "csi-sanity has it pending"
	case r.State.Is(types.SpecStateSkipped):
		s.Outcome, s.Message = skipped, r.Failure.Message
	case excuse(r):
		s.Outcome, s.Message = skipped, "csi-sanity compares messages with what protobuf keeps beside them, and they differ in that alone"
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

// beside is what a message holds that is not its content: where it is, and how
// long it was when it was sent.
var beside = regexp.MustCompile(`0x[0-9a-f]+|sizeCache: \d+`)

// excuse reports whether a spec failed because csi-sanity compares protobuf
// messages by reflection, and for no other reason: csi-test v5.6.0 does so with
// the topology of a snapshot (controller.go:1454), and no driver that answers one
// can pass.
func excuse(r *types.SpecReport) bool {
	if !r.State.Is(types.SpecStateFailed) {
		return false
	}
	got, rest, ok := strings.Cut(strings.TrimPrefix(r.Failure.Message, "Expected\n"), "\nto equal\n")
	return ok && strings.Contains(got, "sizeCache") && beside.ReplaceAllString(got, "") == beside.ReplaceAllString(rest, "")
}

func specName(r *types.SpecReport) string {
	texts := append(slices.Clone(r.ContainerHierarchyTexts), r.LeafNodeText)
	if r.LeafNodeType != types.NodeTypeIt {
		texts = append(texts, r.LeafNodeType.String())
	}
	return strings.Join(texts, " ")
}
