package csikit_test

import (
	"slices"
	"strings"
	"testing"
)

// TestLVMTable: each row of docs/lvm.md names tests that are there, or says no.
func TestLVMTable(t *testing.T) {
	packages := make(map[string]testsOf)
	rows := rowsOf(t, "docs/lvm.md")
	for _, r := range rows {
		if len(r) != 5 || r[4] == "" {
			if len(r) < 4 || !strings.HasPrefix(r[3], "no") {
				t.Errorf("%q has no test", r)
			}
			continue
		}
		for ref := range strings.SplitSeq(r[4], "; ") {
			dir, name, _ := strings.Cut(ref, " ")
			if packages[dir] == nil {
				packages[dir] = parseTests(t, dir)
			}
			if err := packages[dir].find(name); err != nil {
				t.Errorf("%s: %s: %v", r[0], dir, err)
			}
		}
	}
	for _, want := range []string{"raw block", "thin pools", "group snapshot", "encryption (LUKS)", "state"} {
		if !slices.ContainsFunc(rows, func(r []string) bool { return r[0] == want }) {
			t.Errorf("no row %q", want)
		}
	}
}
