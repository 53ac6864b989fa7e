package sanity

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2/types"
)

func it(state types.SpecState, message string) types.SpecReport {
	return types.SpecReport{
		ContainerHierarchyTexts: []string{"Node Service", "Stage"}, LeafNodeText: "should " + state.String(), LeafNodeType: types.NodeTypeIt,
		State: state, Failure: types.Failure{Message: message},
	}
}

func TestReadReport(t *testing.T) {
	tests := []struct {
		name string
		in   types.Report
		want []string // name: message
	}{
		{"good", types.Report{SuiteSucceeded: true, SpecReports: types.SpecReports{
			it(types.SpecStatePassed, ""), it(types.SpecStateSkipped, "no CLONE_VOLUME"), it(types.SpecStatePending, ""),
			{LeafNodeType: types.NodeTypeBeforeSuite, State: types.SpecStatePassed},
		}}, []string{"Node Service Stage should passed: ", "Node Service Stage should skipped: no CLONE_VOLUME", "Node Service Stage should pending: csi-sanity has it pending"}},
		{"failed", types.Report{SpecReports: types.SpecReports{it(types.SpecStateFailed, "wrong code")}}, []string{"Node Service Stage should failed: failed: wrong code"}},
		{"compared by reflection", types.Report{SpecReports: types.SpecReports{
			it(types.SpecStateFailed, "Expected\n    <*csi.Topology | 0x1a>: {\n  a: \"b\",\n sizeCache: 0,\n }\nto equal\n    <*csi.Topology | 0x2b>: {\n  a: \"b\",\n sizeCache: 46,\n }"),
		}}, []string{"Node Service Stage should failed: csi-sanity compares messages"}},
		{"other content", types.Report{SpecReports: types.SpecReports{
			it(types.SpecStateFailed, "Expected\n    <*csi.Topology | 0x1a>: {\n  a: \"b\",\n sizeCache: 0,\n }\nto equal\n    <*csi.Topology | 0x2b>: {\n  a: \"c\",\n sizeCache: 46,\n }"),
		}}, []string{"Node Service Stage should failed: failed: Expected"}},
		{"timed out", types.Report{SpecReports: types.SpecReports{it(types.SpecStateTimedout, "late")}}, []string{"Node Service Stage should timedout: timedout: late"}},
		{"outside", types.Report{SpecReports: types.SpecReports{
			it(types.SpecStatePassed, ""), {LeafNodeType: types.NodeTypeAfterSuite, State: types.SpecStateFailed, Failure: types.Failure{Message: "cleanup"}},
		}}, []string{"Node Service Stage should passed: ", " AfterSuite: failed: cleanup"}},
		{"suite", types.Report{SpecialSuiteFailureReasons: []string{"Suite Timeout Elapsed"}}, []string{"the suite: Suite Timeout Elapsed"}},
		{"silent", types.Report{SpecReports: types.SpecReports{it(types.SpecStatePassed, "")}}, []string{"Node Service Stage should passed: ", "the suite: failed, and says nothing else"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.json")
			if err := writeJSON(file, []types.Report{tt.in}); err != nil {
				t.Fatal(err)
			}
			specs, err := readReport(file)
			if err != nil || len(specs) != len(tt.want) {
				t.Fatalf("%v, %v", specs, err)
			}
			for i, s := range specs {
				if got := s.Name + ": " + s.Message; !strings.HasPrefix(strings.TrimSpace(got), strings.TrimSpace(tt.want[i])) {
					t.Errorf("got %q, want %q", got, tt.want[i])
				}
			}
		})
	}
	file := filepath.Join(t.TempDir(), "empty.json")
	for _, text := range []string{"", "[]", "{"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if specs, err := readReport(file); err == nil {
			t.Errorf("%q: %v", text, specs)
		}
	}
}

func TestSkips(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skips.txt")
	specs := []Result{
		{ID: "csi-sanity/b", Verdict: NotApplicable}, {ID: "csi-sanity/a", Verdict: NotApplicable},
		{ID: "csi-sanity/c", Verdict: Pass}, {ID: "csi-sanity/b", Verdict: NotApplicable}, {ID: "H-01/x", Verdict: NotApplicable},
	}
	if err := checkSkips(file, specs, false); err == nil || !strings.Contains(err.Error(), updateEnv) {
		t.Errorf("without a file: %v", err)
	}
	if err := checkSkips(file, specs, true); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != skipsHeader+"a\nb\n" {
		t.Errorf("file: %q, %v", b, err)
	}
	if err := checkSkips(file, specs, false); err != nil {
		t.Error(err)
	}
	err := checkSkips(file, []Result{{ID: "csi-sanity/a", Verdict: NotApplicable}, {ID: "csi-sanity/new", Verdict: NotApplicable}}, false)
	if err == nil || !strings.Contains(err.Error(), "not listed:\nnew\n") || !strings.Contains(err.Error(), "not skipped:\nb\n") {
		t.Errorf("changed: %v", err)
	}
}

// TestAsksMore: what csi-sanity says of valid drivers, as it says it; and what it
// says of others.
func TestAsksMore(t *testing.T) {
	const node, list = "Node Service ", "ListSnapshots [Controller Server] "
	codes := func(got, want int) string {
		return fmt.Sprintf("failed: unexpected error: text\nExpected\n    <codes.Code>: %d\nto equal\n    <codes.Code>: %d", got, want)
	}
	for _, tt := range []struct {
		name, message string
		more          bool
	}{
		{node + "NodeGetVolumeStats should fail when volume is not found", codes(3, 5), true},
		{node + "NodeGetVolumeStats should fail when volume is not found", codes(13, 5), false},
		{node + "NodeGetVolumeStats should fail when volume does not exist on the specified path", codes(3, 5), true},
		{node + "NodeGetVolumeStats should fail when no volume path is provided", codes(5, 3), false},
		{node + "NodeExpandVolume should fail when volume is not found", codes(3, 5), true},
		{"GroupController Service [GroupController VolumeGroupSnapshots] DeleteVolumeGroupSnapshot should succeed when an invalid volume id is used",
			"failed: Unexpected error: rpc error: code = InvalidArgument desc = snapshot_ids", true},
		{"ModifyVolume [Controller Server] should fail if volume does not exist", codes(3, 5), true},
		{"ModifyVolume [Controller Server] should fail if volume does not exist", codes(2, 5), false},
		{"Identity Service GetPluginInfo should return appropriate information", "failed: Expected\n    <bool>: false\nto be true", true},
		{"Identity Service GetPluginInfo should return appropriate information", "failed: Unexpected error: rpc error: code = Unavailable desc = no version\n  at identity.go:109", false},
		{"Controller Service [Controller Server] CreateVolume should fail when requesting to create a volume with already existing name and different capacity", codes(11, 6), true},
		{"Controller Service [Controller Server] CreateVolume should fail when requesting to create a volume with already existing name and different capacity", codes(3, 6), false},
		{"Controller Service [Controller Server] ListVolumes check the presence of new volumes and absence of deleted ones in the volume list", "failed: Expected\n    <int>: 1\nto equal\n    <int>: 2", true},
		{list + "should return next token when a limited number of entries are requested", "failed: Expected\n    <[]*csi.ListSnapshotsResponse_Entry | len:1, cap:1>: []\nto have length 2", true},
		{list + "should return snapshots that match the specified snapshot id", "failed: Expected\n    <[]*csi.ListSnapshotsResponse_Entry | len:0, cap:0>: []\nto have length 1", false},
	} {
		if got := asksMore(&spec{Name: tt.name, Message: tt.message}); (got != "") != tt.more {
			t.Errorf("%s: %.60q: %q", tt.name, tt.message, got)
		}
	}
}
