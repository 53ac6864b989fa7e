package faultpoint_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/csikit/csikit/internal/deptest"
	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/internal/testenv"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, nil) // idempotency imports it, and has nothing else
}

func BenchmarkReach(b *testing.B) {
	for range b.N {
		faultpoint.Reach("faultpoint.bench")
	}
}

const program = `package main

import (
	"fmt"

	"github.com/csikit/csikit/internal/faultpoint"
)

func main() {
	for i := range 3 {
		fmt.Println(i)
		faultpoint.Reach("a")
		faultpoint.Reach("b")
	}
}
`

// build makes the program; it has to lie inside of this module to import it.
func build(t *testing.T, tags string) string {
	t.Helper()
	testenv.Tool(t, "go")
	dir := t.TempDir()
	source, overlay, bin := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "prog")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		source: program, overlay: `{"Replace":{"` + filepath.Join(here, "prog", "main.go") + `":"` + source + `"}}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-tags", tags, "-o", bin, "./prog").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func TestReach(t *testing.T) {
	on, off := build(t, "csikit_faults"), build(t, "")
	log, file := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("b:2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		bin, spec, out, reached string
		dies                    bool
	}{
		{on, "", "0 1 2", "a b a b a b", false},
		{on, "a:1", "0", "a", true},
		{on, "b:2", "0 1", "a b a b", true},
		{on, "b:4", "0 1 2", "a b a b a b", false},
		{on, "*:3", "0 1", "a b a", true},
		{on, "ab:1", "0 1 2", "a b a b a b", false},
		{on, "@" + file, "0 1", "a b a b", true},
		{on, "@" + file + ".none", "0 1 2", "a b a b a b", false},
		{off, "a:1", "0 1 2", "", false},
	} {
		_ = os.Remove(log)
		cmd := exec.CommandContext(t.Context(), c.bin)
		cmd.Env = append(os.Environ(), "CSIKIT_FAULT="+c.spec, "CSIKIT_FAULT_LOG="+log, "CSIKIT_FAULT_THREAD=1")
		out, err := cmd.Output()
		var exit *exec.ExitError
		died := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		reached, _ := os.ReadFile(log)
		if died != c.dies || !died && err != nil || words(out) != c.out || words(reached) != c.reached {
			t.Errorf("%q: died %v (%v), printed %q, reached %q; want %+v", c.spec, died, err, words(out), words(reached), c)
		}
	}
}

// TestFree: an ordinary binary carries neither a name nor the environment's.
func TestFree(t *testing.T) {
	bin, err := os.ReadFile(build(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(bin), "CSIKIT_FAULT") {
		t.Error("an ordinary build carries the fault points")
	}
}

func words(b []byte) string { return strings.Join(strings.Fields(string(b)), " ") }
