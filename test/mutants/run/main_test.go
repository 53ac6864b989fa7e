package main

import (
	"os/exec"
	"path/filepath"
	"strings"
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

// TestRecordIsWhole: the record is of the mutants that there are, as they are, each
// caught. make mutants writes it.
func TestRecordIsWhole(t *testing.T) {
	r, err := readRecord("../../../cmd/csikit/internal/clauses/mutants.tsv")
	if err != nil {
		t.Fatal(err)
	}
	all := mutants.All()
	for _, m := range all {
		switch c, ok := r[m.Name]; {
		case !ok || c.clauses != strings.Join(m.Clauses, " "):
			t.Errorf("%s is not in the record, or breaks other clauses there: make mutants again", m.Name)
		case c.by == "":
			t.Errorf("%s was not caught", m.Name)
		}
	}
	if len(r) != len(all) {
		t.Errorf("the record has %d mutants, and there are %d", len(r), len(all))
	}
}
