package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/driverproc"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/sanity"
)

// startDriver runs the demo's driver as somebody else's.
func startDriver(t *testing.T, bin string, args ...string) (endpoint string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "csikit-") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	w := workspace{dir: dir}
	for _, d := range []string{w.pool(), w.state(), w.pods()} {
		if err := os.Mkdir(d, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	p := &driverproc.Process{Argv: append([]string{bin, driverCommand, "-dir", dir}, args...), Socket: w.socket(), Log: w.log()}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("%v\n%s", err, p.Tail(20))
		}
		left, err := countLeft(w)
		if err != nil || left.any() {
			t.Errorf("left: %+v, %v", left, err)
		}
		if err := removeWorkspace(dir); err != nil {
			t.Error(err)
		}
	})
	return "unix://" + w.socket()
}

func TestWalkCommand(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.xfs", "xfs_growfs")
	bin := build(t)
	endpoint := startDriver(t, bin)
	for _, args := range [][]string{{"-fs", "xfs", "-size", "400000000", "-only", "life,snapshot"}, {"-access", "block", "-dir", t.TempDir(), "-parameters", "type=thin"}} {
		args = append([]string{"walk", "-endpoint", endpoint}, args...)
		out, code := runDemo(t, exec.CommandContext(t.Context(), bin, args...))
		for _, want := range []string{"pod-2 reads the same 8 MiB back", "df pod-1", "nothing left", "restored-2's pod-1 reads the same", "snapshot    passed\n"} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("exit code %d, and it does not show %q", code, want)
			}
		}
	}
	out, code := runDemo(t, exec.CommandContext(t.Context(), bin, "walk", "-endpoint", endpoint, "-fs", "ntfs"))
	if code != 1 || !strings.Contains(out, "InvalidArgument") || strings.Contains(out, "left behind") {
		t.Errorf("a file system that the driver has not: exit code %d", code)
	}
	for _, wrong := range [][]string{{"-only", "life,lives"}, {"-inline", "size"}, {"-mutable-parameters", "=x"}} {
		args := append([]string{"walk", "-endpoint", endpoint}, wrong...)
		if out, code := runDemo(t, exec.CommandContext(t.Context(), bin, args...)); code != 2 {
			t.Errorf("%q: exit code %d\n%s", wrong, code, out)
		}
	}
}

// TestWalkMinimal: the driver in one file, as its README starts it, has one
// subject; the others are named and count as nothing.
func TestWalkMinimal(t *testing.T) {
	testenv.Root(t)
	bin, dir := build(t), t.TempDir()
	driver, root, state := filepath.Join(dir, "minimal"), filepath.Join(dir, "root"), filepath.Join(dir, "state")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", driver, "../../examples/minimal").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := errors.Join(os.Mkdir(root, 0o750), os.Mkdir(state, 0o750)); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "csikit-") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(short, "s")
	p := &driverproc.Process{
		Argv:   []string{driver, "-root", root, "-state-dir", state, "-node-id", "n", "-endpoint", "unix://" + socket},
		Socket: socket, Log: filepath.Join(dir, "log"),
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), os.Remove(short)); err != nil {
			t.Errorf("%v\n%s", err, p.Tail(20))
		}
	})
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, code := runDemo(t, exec.CommandContext(t.Context(), bin, "walk", "-endpoint", "unix://"+socket))
	if code != 0 || strings.Count(out, "passed\n") != 1 || strings.Count(out, " not advertised: ") != 6 || !strings.Contains(out, "life        passed\n") {
		t.Errorf("exit code %d", code)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// checkFiles runs csikit check and reads its files back.
func checkFiles(t *testing.T, bin string, args ...string) (j report, x junitSuite, out string, code int) {
	t.Helper()
	dir := t.TempDir()
	jsonFile, junitFile := filepath.Join(dir, "out.json"), filepath.Join(dir, "out.xml")
	out, code = runDemo(t, exec.CommandContext(t.Context(), bin, append([]string{"check", "-json", jsonFile, "-junit", junitFile}, args...)...))
	b, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &j); err != nil {
		t.Errorf("JSON: %v", err)
	}
	b, err = os.ReadFile(junitFile)
	if err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal(b, &suites); err != nil || len(suites.Suites) != 1 {
		t.Fatalf("JUnit: %v, %d suites", err, len(suites.Suites))
	}
	x = suites.Suites[0]
	sameCounts(t, &j, &x)
	return j, x, out, code
}

// sameCounts: the totals of both files are those of their entries.
func sameCounts(t *testing.T, j *report, x *junitSuite) {
	t.Helper()
	want := map[sanity.Outcome]int{sanity.Passed: j.Passed, sanity.Failed: j.Failed, sanity.Skipped: j.Skipped}
	got := map[sanity.Outcome]int{sanity.Passed: 0, sanity.Failed: 0, sanity.Skipped: 0}
	for _, s := range j.Specs {
		got[s.Outcome]++
	}
	fromXML := map[sanity.Outcome]int{sanity.Passed: 0, sanity.Failed: 0, sanity.Skipped: 0}
	for _, c := range x.Cases {
		switch {
		case c.Failure != nil:
			fromXML[sanity.Failed]++
		case c.Skipped != nil:
			fromXML[sanity.Skipped]++
		default:
			fromXML[sanity.Passed]++
		}
	}
	if !maps.Equal(got, want) || !maps.Equal(fromXML, want) || x.Tests != len(j.Specs) || x.Failures != j.Failed || x.Skipped != j.Skipped {
		t.Errorf("JSON says %v and has %v, JUnit has %v and says %d, %d, %d", want, got, fromXML, x.Tests, x.Failures, x.Skipped)
	}
}

func TestCheckCommand(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.xfs")
	bin := build(t)
	endpoint := startDriver(t, bin)
	for _, access := range []string{"mount", "block"} {
		j, _, out, code := checkFiles(t, bin, "-endpoint", endpoint, "-access", access)
		if code != 0 || j.Failed != 0 || j.Passed < 40 || j.Access != access || !strings.Contains(out, " passed, 0 failed, ") {
			t.Errorf("exit code %d: %d passed, %d failed", code, j.Passed, j.Failed)
		}
	}
	j, x, out, code := checkFiles(t, bin, "-endpoint", startDriver(t, bin, "-rootless"), "-access", "block")
	if code != 1 || j.Failed == 0 || !strings.Contains(out, "FAIL  ") || !strings.Contains(out, "no raw block volumes") {
		t.Errorf("a driver without block volumes: exit code %d, %d failed", code, j.Failed)
	}
	for _, c := range x.Cases {
		if c.Failure != nil && (c.Failure.Message == "" || c.Failure.Text == "") {
			t.Errorf("JUnit: %s failed without saying why", c.Name)
		}
	}
}

// TestCheckNobody: without a driver the run is what failed, in the files too.
func TestCheckNobody(t *testing.T) {
	bin := build(t)
	j, _, _, code := checkFiles(t, bin, "-endpoint", "unix://"+t.TempDir()+"/csi.sock", "-timeout", "200ms")
	if code != 1 || j.Failed != 1 || j.Specs[0].Name != "the run" || !strings.Contains(j.Specs[0].Message, "csi.sock") {
		t.Errorf("exit code %d: %+v", code, j)
	}
	if _, code := runDemo(t, exec.CommandContext(t.Context(), bin, "check", "-endpoint", "/x", "-access", "both")); code != 2 {
		t.Errorf("wrong usage: exit code %d", code)
	}
}

func TestEndpointFlags(t *testing.T) {
	secrets := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(secrets, []byte(`{"password":"canary"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newEndpointFlags("walk")
	err := f.parse([]string{"--endpoint", "/a", "--node-endpoint", "unix:/b", "--access", "block", "--parameters", "a=b=c,d=", "--secrets", secrets})
	if err != nil || f.endpoint != "unix:///a" || f.node != "unix:///b" || !f.block || !maps.Equal(f.parameters, map[string]string{"a": "b=c", "d": ""}) || f.secrets["password"] != "canary" {
		t.Errorf("%+v, %v", f, err)
	}
	t.Setenv("CSI_ENDPOINT", "unix:///env")
	if f := newEndpointFlags("walk"); f.parse(nil) != nil || f.endpoint != "unix:///env" {
		t.Errorf("from the environment: %q", f.endpoint)
	}
	t.Setenv("CSI_ENDPOINT", "")
	for _, args := range [][]string{
		{}, {"-endpoint", "x"}, {"-endpoint", "/a", "-access", "nfs"}, {"-endpoint", "/a", "-parameters", "a"}, {"-endpoint", "/a", "-parameters", "=b"},
		{"-endpoint", "/a", "-parameters", "a=1,a=2"}, {"-endpoint", "/a", "more"}, {"-endpoint", "/a", "-size", "-1"}, {"-endpoint", "/a", "-wrong"},
	} {
		if err := newEndpointFlags("walk").parse(args); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if err := os.WriteFile(secrets, []byte(`"canary"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newEndpointFlags("walk").parse([]string{"-endpoint", "/a", "-secrets", secrets}); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("secrets: %v", err)
	}
}

// TestLines: one line for each spec, on a terminal the running one too; gomega's
// Go values are left out.
func TestLines(t *testing.T) {
	var b strings.Builder
	l := newLines(&b)
	l.Begin("spec")
	l.End(sanity.Spec{Name: "spec", Outcome: sanity.Failed, Message: "failed: x\n    <*Error | 0x1>: \n    rpc error: code = Internal desc = y\n    {\n        s: {\n        },\n    }\noccurred\n"})
	l.End(sanity.Spec{Name: "other", Outcome: sanity.Skipped, Message: "no\nmore"})
	const want = "FAIL    0.00 s  spec\n      | failed: x\n      |     <*Error | 0x1>: \n      |     rpc error: code = Internal desc = y\n      | occurred\nskip            other (no)\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	l.terminal = true
	l.Begin("spec")
	l.End(sanity.Spec{Name: "spec", Outcome: sanity.Passed})
	if b.String() != "run   spec"+eraseLine+"ok      0.00 s  spec\n" {
		t.Errorf("on a terminal: %q", b.String())
	}
}

// TestReportsOfAnything: what a driver says may be no XML and no UTF-8.
func TestReportsOfAnything(t *testing.T) {
	r := report{Access: "mount"}
	r.add(sanity.Spec{Name: "a <b> & \x00\xff", Outcome: sanity.Failed, Message: "]]> \x1b[31m \xff <x>"})
	for name, write := range map[string]func(io.Writer) error{"json": r.writeJSON, "xml": r.writeJUnit} {
		var b strings.Builder
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		var err error
		if name == "json" {
			err = json.Unmarshal([]byte(b.String()), new(report))
		} else {
			err = xml.Unmarshal([]byte(b.String()), new(junitSuites))
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, b.String())
		}
	}
}
