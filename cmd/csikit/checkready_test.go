package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/sanity"
)

// TestUsable: what is given and cannot work is said before anything is run, and
// leaves nothing.
func TestUsable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"-restart has no command":    {"-restart", " "},
		"no-such-program":            {"-restart", "/no-such-program --now"},
		"no-such-log":                {"-log", "/no-such-log"},
		"is no directory":            {"-dir", file},
		"-secrets":                   {"-secrets", "/no-such-file"},
		"no number of bytes":         {"-size", "10Gi"},
		"no-such-dir":                {"-json", file, "-junit", filepath.Join(dir, "new"), "-html", "/no-such-dir/x"},
		"two reports":                {"-json", filepath.Join(dir, "new"), "-junit", filepath.Join(dir, "new")},
		"there is no check \"H-77\"": {"-only", "H-05, H-77"},
	} {
		err := check(t.Context(), append([]string{"-endpoint", "/x/csi.sock"}, args...), io.Discard)
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "before" {
		t.Errorf("a report that was there: %q, %v", b, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// TestReportReplaced: a shorter report leaves nothing of the one that was there.
func TestReportReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"a long report", "short"} {
		r, err := createAll("", file)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(r.files[1], func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestOutcome: a run in which nothing was run does not pass, and neither does one
// whose -restart never worked.
func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		want     error
		verdicts []sanity.Verdict
	}{
		{nil, []sanity.Verdict{sanity.Pass, sanity.NotRun, sanity.Warn}},
		{nil, []sanity.Verdict{sanity.NotApplicable, sanity.NotRun}},
		{errNotRun, []sanity.Verdict{sanity.NotRun, sanity.NotRun}},
		{errSaid, []sanity.Verdict{sanity.NotRun, sanity.Fail}},
	} {
		r := &sanity.Report{}
		for _, v := range c.verdicts {
			r.Results = append(r.Results, sanity.Result{ID: "x", Verdict: v})
		}
		r.End()
		if err := outcome(r); !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.verdicts, err)
		}
	}
	f := newCheckFlags()
	f.restart = "false"
	if err := f.runRestart(t.Context()); err == nil || f.restarts.trouble() == nil {
		t.Errorf("%v, %v", err, f.restarts.trouble())
	}
	f.restart = "true"
	if err := f.runRestart(t.Context()); err != nil || f.restarts.trouble() != nil {
		t.Errorf("%v, %v", err, f.restarts.trouble())
	}
}

// TestParameterSlip: parameters that the driver refuses are the author's slip, which
// is said once and before the run; a -restart that fails is a failure of the run.
func TestParameterSlip(t *testing.T) {
	testenv.Root(t)
	bin := build(t)
	endpoint := startDriver(t, bin)
	run := func(args ...string) (string, int) {
		return runDemo(t, exec.CommandContext(t.Context(), bin, append([]string{"check", "-endpoint", endpoint, "-size", "67108864"}, args...)...))
	}
	json := filepath.Join(t.TempDir(), "out.json")
	out, code := run("-only", "H-04/within", "-parameters", "typ=thin", "-json", json)
	if code != 2 || !strings.Contains(out, "-parameters typ=thin") || strings.Contains(out, "FAIL") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if _, err := os.Lstat(json); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a report of no run: %v", err)
	}
	if out, code = run("-only", "H-04/within", "-parameters", "type=thin"); code != 0 {
		t.Errorf("exit code %d: %s", code, out)
	}
	if out, code = run("-only", "H-08/ids,H-04/within", "-restart", "false"); code != 1 || !strings.Contains(out, "-restart does not restart the driver: false") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if out, code = run("-only", "H-08/ids"); code != 2 || !strings.Contains(out, "nothing could be run") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
