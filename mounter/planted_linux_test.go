package mounter_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// planted is one fault in the engine's source: in a file the first text is
// replaced by the second. Faults of which a second check prevents the harm, such as
// an unstage that does not look for targets, are not here: no model can see them.
type planted struct {
	name, file, right, wrong string
}

var faults = []planted{
	{"publish stacks a mount on its own", "publish.go",
		"if len(p.mounts) > 0 {\n\t\treturn p.again(ctx, before)", "if len(p.mounts) > 0 && before == nil {\n\t\treturn p.again(ctx, before)"},
	{"publish trusts the staging record", "publish.go",
		"case !live:\n\t\treturn refuse(\"it is not mounted", "case !live && r.Mounted == nil:\n\t\treturn refuse(\"it is not mounted"},
	{"publish takes a foreign mount for its own", "publish.go",
		"case !is:\n\t\treturn refuse(\"something else is mounted there: %s; it is left alone\", describeMount(top))", "case false:"},
	{"unpublish trusts its records", "unpublish.go",
		"if r == nil {\n\t\tif err := e.mayUnpublish(", "if r == nil {\n\t\treturn nil\n\t}\n\tif r == nil {\n\t\tif err := e.mayUnpublish("},
	{"unpublish leaves the mount point", "unpublish.go",
		"if err := removeTarget(path); err != nil {", "if err := removeTarget(path + \"-\"); err != nil {"},
	{"stage trusts its record", "stage.go",
		"if len(s.mounts) == 0 {\n\t\treturn false, nil", "if len(s.mounts) == 0 {\n\t\treturn true, nil"},
	{"stage takes a foreign mount for its own", "stage.go",
		"case !is:\n\t\treturn false, s.foreign()", "case !is && s.path == \"\":"},
	{"stage does not identify the device", "stage_device.go",
		"if err := d.Verify(ctx, s.src.Device.Identity); err != nil {", "if err := d.Verify(ctx, s.src.Device.Identity); err != nil && d.Num() == 0 {"},
	{"a formatted disk that reads as blank is formatted", "decide.go",
		"case e.done() != \"\":\n\t\treturn verdict{}, e.refuse(\"it was formatted with %s before", "case false:\n\t\treturn verdict{}, e.refuse(\"it was formatted with %s before"},
	{"a disk that cannot be read is blank", "format.go",
		"content, err := d.Probe(ctx)\n\tif err != nil {", "content, err := d.Probe(ctx)\n\tif err != nil {\n\t\treturn blockdev.Content{State: blockdev.Blank}, nil\n\t}\n\tif err != nil {"},
	{"unstage forgets an error of closing", "close.go",
		"if err := e.callClose(ctx, r.Volume, r.State); err != nil {\n\t\t\treturn err\n\t\t}", "_ = e.callClose(ctx, r.Volume, r.State)"},
	{"a descriptor is left open", "publish.go",
		"return true, d.Close()", "return d != nil, nil"},
}

// TestPlantedFaults plants each fault in a copy of its file, by go's overlay, and
// wants one of the two model tests to find it.
func TestPlantedFaults(t *testing.T) {
	testenv.Root(t)
	if testing.Short() {
		t.Skip("builds the engine once for each fault")
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			out, err := f.run(t)
			switch {
			case err == nil:
				t.Errorf("nobody found it\n%s", out)
			case !strings.Contains(out, "--- FAIL: TestModel") && !strings.Contains(out, "--- FAIL: TestRealModel"):
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func (f planted) run(t *testing.T) (string, error) {
	file, err := filepath.Abs(f.file)
	must(t, err)
	source, err := os.ReadFile(file)
	must(t, err)
	if n := strings.Count(string(source), f.right); n != 1 {
		t.Fatalf("%s has %d times the text\n%s", f.file, n, f.right)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, f.file), filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(changed, []byte(strings.Replace(string(source), f.right, f.wrong, 1)), 0o600))
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	must(t, err)
	must(t, os.WriteFile(overlay, b, 0o600))
	// The model in memory walks further in a second than the real one, which is
	// asked about what only the real one can see.
	// What a fault leaks is this test's to take back.
	tmp := t.TempDir()
	t.Cleanup(func() { must(t, testenv.TakeBack(tmp)) })
	for _, model := range [][2]string{{"TestModel", "-rapid.checks=500"}, {"TestRealModel", "-rapid.checks=300"}} {
		cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-count=1", "-run", "^"+model[0]+"$", ".",
			model[1], "-rapid.nofailfile", "-rapid.shrinktime=1ms")
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		if out, err := cmd.CombinedOutput(); err != nil {
			return string(out), err
		}
	}
	return "", nil
}
