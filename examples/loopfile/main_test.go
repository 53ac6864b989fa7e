package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInit(t *testing.T) {
	pool := filepath.Join(t.TempDir(), "pool")
	for range 2 {
		if err := run(t.Context(), []string{"-pool", pool, "-init", "-allow-root-fs"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(t.Context(), []string{"-mode", "neither"}); err == nil || !strings.Contains(err.Error(), "-mode") {
		t.Errorf("a mode that is none: %v", err)
	}
}

// TestReadme: the flags that the README lists are those of the program.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("flags.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"endpoint", "pool", "pool-name", "init", "init-pool", "state-dir", "kubelet-dir", "register", "kubelet-endpoint", "health", "node-id", "mode", "thin", "allow-root-fs", "io-cgroup"} {
		if !strings.Contains(string(readme), "| `-"+f+"` |") {
			t.Errorf("README.md does not list -%s", f)
		}
		if !strings.Contains(string(source), `"`+f+`"`) {
			t.Errorf("flags.go has no -%s", f)
		}
	}
}
