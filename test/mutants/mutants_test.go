package mutants

import (
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// clauses are the IDs of testdata/clauses.tsv.
func clauses(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../testdata/clauses.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for line := range strings.Lines(string(b)) {
		id, _, _ := strings.Cut(line, "\t")
		ids = append(ids, id)
	}
	return ids
}

// TestTable holds the list of mutants to what it promises.
func TestTable(t *testing.T) {
	known := clauses(t)
	seen := make(map[string]bool)
	number := make(map[Class]int)
	for _, m := range slices.Concat(All(), Variants()) {
		if seen[m.Name] {
			t.Errorf("%s is there twice", m.Name)
		}
		seen[m.Name] = true
		number[m.Class]++
		if m.Install == nil || m.Does == "" || (len(m.Clauses) == 0) != (m.Class == Valid) {
			t.Errorf("%s is not whole", m.Name)
		}
		for _, c := range m.Clauses {
			if !slices.Contains(known, c) {
				t.Errorf("%s: there is no clause %s", m.Name, c)
			}
		}
	}
	n := len(All())
	t.Logf("%d mutants: %v", n, number)
	switch {
	case n < 150, number[Code] > 70, number[Concurrency] < 15, number[Data] < 10, number[Leak]+number[Secret] < 10, number[Valid] < 12:
		t.Errorf("too few, or too many of one class: %d, %v", n, number)
	}
}

// TestSwitches: each mutant answers something else than the reference does. In full
// with CSIKIT_MUTANTS=all, which make mutants sets.
func TestSwitches(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.ext4", "mkfs.xfs")
	all := os.Getenv("CSIKIT_MUTANTS") == "all"
	only := os.Getenv("CSIKIT_MUTANT")
	var notes Notes
	limit := make(chan struct{}, 6)
	var wg sync.WaitGroup
	dir := t.TempDir()
	for i, m := range All() {
		if only != "" && m.Name != only || only == "" && !all && i%24 != 0 {
			continue
		}
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			d, err := Differs(t.Context(), m, dir, &notes)
			for try := 0; try < 2 && d == "" && err == nil; try++ { // of a busy machine two calls may not have met
				d, err = Differs(t.Context(), m, dir, &notes)
			}
			switch {
			case err != nil:
				t.Errorf("%s: %v", m.Name, err)
			case d == "":
				t.Errorf("%s (%s) answers as the reference does", m.Name, m.Does)
			default:
				t.Logf("%s: %.200s", m.Name, d)
			}
		})
	}
	wg.Wait()
}
