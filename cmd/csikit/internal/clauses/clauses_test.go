package clauses

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/sanity"
)

// TestTable: the table names the tests that docs/clauses.md names, and no others.
func TestTable(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/clauses.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{}
	id := regexp.MustCompile(`^[A-Z]{2,3}-[0-9]{2}$`)
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(f) == 5 && id.MatchString(strings.TrimSpace(f[0])) {
			tests[strings.TrimSpace(f[0])] = strings.TrimSpace(f[3])
		}
	}
	all := All()
	if len(all) != 380 || len(tests) < 270 {
		t.Fatalf("%d clauses, %d rows in docs/clauses.md", len(all), len(tests))
	}
	for _, c := range all {
		if c.Tests != tests[c.ID] {
			t.Errorf("%s: the table has %q, docs/clauses.md %q", c.ID, c.Tests, tests[c.ID])
		}
	}
}

// TestChecks: each check names clauses that there are, and is there once.
func TestChecks(t *testing.T) {
	known, ids := map[string]bool{}, map[string]bool{}
	for _, c := range All() {
		known[c.ID] = true
	}
	for _, c := range sanity.Checks() {
		if ids[c.ID] || c.Title == "" || len(c.Clauses) == 0 {
			t.Errorf("%s: twice, or without title or clauses: %+v", c.ID, c)
		}
		ids[c.ID] = true
		for _, id := range c.Clauses {
			if !known[id] {
				t.Errorf("%s: there is no clause %s", c.ID, id)
			}
		}
	}
	if Words("CV-01") == "" || Words("XX-99") != "" {
		t.Error("words of clauses")
	}
}

// TestSums: of the 380 clauses at least 340 are tested, by a mutant that a check of
// the clause has caught, or enforced by csidriver; and of the others it is said why
// not.
func TestSums(t *testing.T) {
	tested := Tested()
	n := 0
	for _, c := range All() {
		if c.Tests != "" || len(tested[c.ID]) > 0 {
			n++
			continue
		}
		if Why(c) == "" {
			t.Errorf("%s (%s): nobody holds a driver to it, and nobody says why", c.ID, c.Words)
		}
	}
	t.Logf("%d of %d, %d of them tested", n, len(All()), len(tested))
	if n < 340 {
		t.Errorf("%d clauses are tested or enforced", n)
	}
}

// TestRecord: what the record of make mutants says is there, is.
func TestRecord(t *testing.T) {
	checks := map[string][]string{"run/alive": {"PR-12"}}
	for _, c := range sanity.Checks() {
		checks[c.ID] = c.Clauses
	}
	if len(Mutants()) < 380 {
		t.Errorf("the record has %d mutants", len(Mutants()))
	}
	for _, m := range Mutants() {
		if m.Check == "" {
			continue // it survived
		}
		if _, ok := checks[m.Check]; !ok || len(m.Proved) == 0 {
			t.Errorf("%s was caught by %q, of its clauses %v: make mutants again", m.Name, m.Check, m.Proved)
		}
		for _, c := range m.Proved {
			if !slices.Contains(m.Clauses, c) {
				t.Errorf("%s does not break %s", m.Name, c)
			}
		}
	}
}
