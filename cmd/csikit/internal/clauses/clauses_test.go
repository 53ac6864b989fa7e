package clauses

import (
	"os"
	"regexp"
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

// TestChecks: each check names clauses that there are, and is there once; those of
// the spec that nobody holds a driver to are few.
func TestChecks(t *testing.T) {
	held, ids := map[string]bool{}, map[string]bool{}
	for _, c := range All() {
		held[c.ID] = c.Tests != ""
	}
	for _, c := range sanity.Checks() {
		if ids[c.ID] || c.Title == "" || len(c.Clauses) == 0 {
			t.Errorf("%s: twice, or without title or clauses: %+v", c.ID, c)
		}
		ids[c.ID] = true
		for _, id := range c.Clauses {
			if _, known := held[id]; !known {
				t.Errorf("%s: there is no clause %s", c.ID, id)
			}
			held[id] = true
		}
	}
	n := 0
	for _, is := range held {
		if is {
			n++
		}
	}
	if n < 340 {
		t.Errorf("%d clauses are tested or enforced", n)
	}
	if Words("CV-01") == "" || Words("XX-99") != "" {
		t.Error("words of clauses")
	}
}
