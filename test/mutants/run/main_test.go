package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/test/mutants"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestSample is a part of make mutants: one fault of some kinds.
func TestSample(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "go")
	dir := t.TempDir()
	driver := filepath.Join(dir, "driver")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", driver, "../driver")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	soft, err := readStrengths("../../../testdata/clauses.tsv")
	if err != nil {
		t.Fatal(err)
	}
	if len(soft) < 380 || !soft["GEN-12"] || soft["CV-02"] {
		t.Fatalf("%d clauses, GEN-12 soft %v, CV-02 soft %v", len(soft), soft["GEN-12"], soft["CV-02"])
	}
	trial := &trial{driver: driver, dir: dir, soft: soft}
	for _, name := range []string{"create-again-another", "delete-again-not-found", "unpublish-leaves-mount", "secret-in-log", "list-no-token"} {
		m, err := mutants.ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if o := trial.try(t.Context(), m); !o.good() {
			t.Errorf("%s: %s %s", name, o.summary(), o.why)
		}
	}
}
