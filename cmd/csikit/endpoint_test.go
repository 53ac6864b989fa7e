package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
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

// cases are what a CI system reads of a JUnit file.
type cases struct {
	Suites []struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Skipped  int `xml:"skipped,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"failure"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// checkFiles runs csikit check and reads its files back.
func checkFiles(t *testing.T, bin string, args ...string) (j sanity.Report, x cases, out string, code int) {
	t.Helper()
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "out.json"), filepath.Join(dir, "out.xml"), filepath.Join(dir, "out.html")}
	all := append([]string{"check", "-json", files[0], "-junit", files[1], "-html", files[2]}, args...)
	out, code = runDemo(t, exec.CommandContext(t.Context(), bin, all...))
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &j); err != nil {
		t.Errorf("JSON: %v", err)
	}
	if b, err = os.ReadFile(files[1]); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(b, &x); err != nil || len(x.Suites) != 1 {
		t.Fatalf("JUnit: %v, %d suites", err, len(x.Suites))
	}
	if b, err = os.ReadFile(files[2]); err != nil || !strings.HasSuffix(string(b), "</html>\n") || strings.Contains(string(b), "src=") {
		t.Errorf("HTML: %v, %d bytes", err, len(b))
	}
	sameCounts(t, &j, &x)
	return j, x, out, code
}

// sameCounts: the totals of both files are those of their entries.
func sameCounts(t *testing.T, j *sanity.Report, x *cases) {
	t.Helper()
	failed, skipped := j.Count(sanity.Fail), j.Count(sanity.NotRun)+j.Count(sanity.NotApplicable)
	if j.Trouble != "" {
		failed++
	}
	f, s := 0, 0
	for _, c := range x.Suites[0].Cases {
		if c.Failure != nil {
			f++
		}
		if c.Skipped != nil {
			s++
		}
	}
	if f != failed || s != skipped || x.Suites[0].Failures != f || x.Suites[0].Skipped != s || x.Suites[0].Tests != len(x.Suites[0].Cases) || j.Counts[sanity.Fail] != j.Count(sanity.Fail) {
		t.Errorf("JSON says %v, JUnit has %d and %d and says %+v", j.Counts, f, s, x.Suites[0])
	}
}

func TestCheckCommand(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.xfs")
	bin := build(t)
	endpoint := startDriver(t, bin)
	for _, access := range []string{"mount", "block"} {
		j, _, out, code := checkFiles(t, bin, "-endpoint", endpoint, "-access", access, "-only", "csi-sanity,H-11")
		if code != 0 || j.Count(sanity.Fail) != 0 || j.Count(sanity.Pass) < 60 || j.Access != access || !strings.Contains(out, " passed, 0 failed, ") {
			t.Errorf("exit code %d: %v", code, j.Counts)
		}
	}
	j, x, out, code := checkFiles(t, bin, "-endpoint", startDriver(t, bin, "-rootless"), "-access", "block", "-only", "csi-sanity")
	if code != 1 || j.Count(sanity.Fail) == 0 || !strings.Contains(out, "FAIL  ") || !strings.Contains(out, "no raw block volumes") {
		t.Errorf("a driver without block volumes: exit code %d, %v", code, j.Counts)
	}
	for _, c := range x.Suites[0].Cases {
		if c.Failure != nil && (c.Failure.Message == "" || c.Failure.Text == "") {
			t.Errorf("JUnit: %s failed without saying why", c.Name)
		}
	}
}

// TestCheckNobody: without a driver nothing could be run, and the files say so too.
func TestCheckNobody(t *testing.T) {
	bin := build(t)
	j, _, _, code := checkFiles(t, bin, "-endpoint", "unix://"+t.TempDir()+"/csi.sock", "-timeout", "200ms")
	if code != 2 || len(j.Results) != 0 || !strings.Contains(j.Trouble, "csi.sock") {
		t.Errorf("exit code %d: %+v", code, j)
	}
	for _, wrong := range [][]string{{"-access", "both"}, {"-only", "H-77"}, {"-json", t.TempDir()}} {
		if _, code := runDemo(t, exec.CommandContext(t.Context(), bin, append([]string{"check", "-endpoint", "/x"}, wrong...)...)); code != 2 {
			t.Errorf("wrong usage: %q: exit code %d", wrong, code)
		}
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

// TestLines: one line for each check, on a terminal the running one too; gomega's
// Go values are left out.
func TestLines(t *testing.T) {
	var b strings.Builder
	l := newLines(&b)
	l.Begin("a")
	l.End(sanity.Result{ID: "a", Verdict: sanity.Fail, Broken: []string{"CV-01"}, Reproduce: "again",
		Message: "failed: x\n    <*Error | 0x1>: \n    rpc error: code = Internal desc = y\n    {\n        s: {\n        },\n    }\noccurred\n",
		Calls:   []sanity.Call{{Method: "Probe", Request: "{}", Code: "INTERNAL", Response: "y"}}})
	l.End(sanity.Result{ID: "other", Verdict: sanity.NotRun, Message: "no\nmore"})
	const want = "FAIL    0.00 s  a\n      | failed: x\n      |     <*Error | 0x1>: \n      |     rpc error: code = Internal desc = y\n      | occurred\n" +
		"      | clauses CV-01\n      | Probe {}\n      |   INTERNAL y\n      | again\nskip            other (no)\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	l.terminal = true
	l.Begin("spec")
	l.End(sanity.Result{ID: "spec", Verdict: sanity.Pass})
	if b.String() != eraseLine+"run   spec"+eraseLine+"ok      0.00 s  spec\n" {
		t.Errorf("on a terminal: %q", b.String())
	}
}
