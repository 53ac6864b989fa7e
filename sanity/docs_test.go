package sanity_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/sanity"
)

// TestTableOfClients: the table of what COs do, in docs/check.md, names checks that
// exist, and each check of what COs do is in it.
func TestTableOfClients(t *testing.T) {
	b, err := os.ReadFile("../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	var named, checks []string
	for line := range strings.Lines(string(b)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && len(cells) == 4 {
			ids := regexp.MustCompile(`H-\d\d/[\w/-]+`).FindAllString(cells[3], -1)
			if len(ids) == 0 && cells[3] != "check |\n" {
				t.Errorf("no check: %s", line)
			}
			named = append(named, ids...)
		}
	}
	for _, c := range sanity.Checks() {
		checks = append(checks, c.ID)
		if strings.HasPrefix(c.ID, "H-29/") && !slices.Contains(named, c.ID) {
			t.Errorf("%s is not in docs/check.md", c.ID)
		}
	}
	for _, id := range named {
		if !slices.Contains(checks, id) {
			t.Errorf("docs/check.md: there is no check %s", id)
		}
	}
}
