package csikit_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestNFSTable: each row of the comparison in docs/nfs.md names tests that are there, and
// none of the rows is gone.
func TestNFSTable(t *testing.T) {
	packages := make(map[string]testsOf)
	wanted := []string{
		"subdirectory per volume", "onDelete", "expand", "capacity reported, GetCapacity", "quota", "snapshot, restore, clone", "stage, unstage",
		"lists of volumes and snapshots", "volume condition", "health of servers", "inline ephemeral", "mountPermissions", "mount options for delete", "stale handles",
		"mount timeout", "stats of a dead server", "unpublish with a dead server", "access modes", "state", "NFS versions",
	}
	for _, r := range rowsOf(t, "docs/nfs.md") {
		if len(r) != 4 || !strings.Contains(r[3], "Test") {
			continue // of another table
		}
		wanted = slices.DeleteFunc(wanted, func(w string) bool { return w == r[0] })
		for ref := range strings.SplitSeq(r[3], ", ") {
			dir, name := "backends/nfs", strings.Trim(ref, "`")
			if inTree, is := strings.CutPrefix(name, "tree."); is {
				dir, name = "backends/nfs/internal/tree", inTree
			}
			if fn, _, _ := strings.Cut(name, "/"); fn == "TestServer" || fn == "TestOutage" || fn == "TestSanity" {
				dir = "examples/nfs"
			}
			if packages[dir] == nil {
				packages[dir] = parseTests(t, dir)
			}
			if err := packages[dir].like(name); err != nil {
				t.Errorf("%s: %s: %v", r[0], dir, err)
			}
		}
	}
	if len(wanted) > 0 {
		t.Errorf("no rows %q", wanted)
	}
}

// like says what is missing of "TestName" or "TestName/a_case"; "…" stands for the rest of
// a name. Cases may be named anywhere in the package.
func (tests testsOf) like(name string) error {
	fn, sub, _ := strings.Cut(name, "/")
	is := func(pattern string) func(string) bool {
		return func(s string) bool {
			begin, open := strings.CutSuffix(pattern, "…")
			return s == pattern || open && strings.HasPrefix(s, begin)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(tests)), is(fn)) {
		return fmt.Errorf("no test %s", fn)
	}
	sub = strings.ReplaceAll(sub, "_", " ")
	for _, cases := range tests {
		if sub == "" || slices.ContainsFunc(cases, is(sub)) {
			return nil
		}
	}
	return fmt.Errorf("%s has no case %q", fn, sub)
}
