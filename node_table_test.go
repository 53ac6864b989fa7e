package csikit_test

import (
	"fmt"
	"strings"
	"testing"
)

// rowsOf are the cells of the tables of a page, without heads and rules.
func rowsOf(t *testing.T, page string) (rows [][]string) {
	t.Helper()
	head := false
	for line := range strings.Lines(read(t, page)) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			head = true
			continue
		case head || strings.HasPrefix(line, "|---"):
			head = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// TestNodeTable: each row of docs/node.md names tests that are there.
func TestNodeTable(t *testing.T) {
	packages := make(map[string]testsOf)
	pains := map[string]bool{}
	rows := rowsOf(t, "docs/node.md")
	for _, r := range rows {
		if len(r) != 3 || r[2] == "" {
			t.Errorf("%q has no test", r[0])
			continue
		}
		number, _, _ := strings.Cut(r[0], " ")
		pains[number] = true
		for ref := range strings.SplitSeq(r[2], "; ") {
			dir, name, _ := strings.Cut(ref, " ")
			if packages[dir] == nil {
				packages[dir] = parseTests(t, dir)
			}
			if err := packages[dir].find(name); err != nil {
				t.Errorf("%s: %s: %v", r[0], dir, err)
			}
		}
	}
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 18, 23} {
		if !pains[fmt.Sprint(n)] {
			t.Errorf("pain %d has no row", n)
		}
	}
	if len(rows) < 32 {
		t.Errorf("only %d rows", len(rows))
	}
}
