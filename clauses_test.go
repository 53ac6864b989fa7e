package csikit_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testsOf is what the test files of a package declare: for each function the
// strings in it, which are the names of its cases. Those outside of functions are
// under "".
type testsOf map[string][]string

func parseTests(t *testing.T, dir string) testsOf {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no tests, %v", dir, err)
	}
	tests := make(testsOf)
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			in := ""
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				in = fn.Name.Name
			}
			tests[in] = append(tests[in], stringsIn(d)...)
		}
	}
	return tests
}

func stringsIn(n ast.Node) []string {
	list := []string{}
	ast.Inspect(n, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				list = append(list, s)
			}
		}
		return true
	})
	return list
}

// find says what is missing of "TestName", "TestName/subtest" or "TestName (case)".
func (tests testsOf) find(name string) error {
	fn, sub, _ := strings.Cut(name, "/")
	if f, c, ok := strings.Cut(name, " ("); ok && sub == "" {
		fn, sub = f, strings.TrimSuffix(c, ")")
	}
	cases, ok := tests[fn]
	switch {
	case !ok || !strings.HasPrefix(fn, "Test"):
		return fmt.Errorf("no test %s", fn)
	case sub != "" && !slices.Contains(cases, sub) && !slices.Contains(tests[""], sub):
		return fmt.Errorf("%s has no case %q", fn, sub)
	}
	return nil
}

// clause is a row of docs/clauses.md.
type clause struct{ rpc, id, says, strength, tests, notYet string }

func clauses(t *testing.T) (rows []clause) {
	t.Helper()
	id := regexp.MustCompile(`^[A-Z]{2,3}-[0-9]{2}$`)
	rpc := ""
	for line := range strings.Lines(read(t, "docs/clauses.md")) {
		if h, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			rpc = h
		}
		f := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		if !id.MatchString(f[0]) {
			continue
		}
		if len(f) != 5 {
			t.Fatalf("%s has %d columns", f[0], len(f))
		}
		rows = append(rows, clause{rpc, f[0], f[1], f[2], f[3], f[4]})
	}
	return rows
}

// TestClauses: each clause that an SDK can hold has its row in docs/clauses.md, in
// order; a row names tests that are there, or says why there is none.
func TestClauses(t *testing.T) {
	var want [][]string
	for line := range strings.Lines(read(t, "testdata/clauses.tsv")) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); f[3] == "yes" {
			want = append(want, f)
		}
	}
	rows := clauses(t)
	for i, w := range want {
		if i >= len(rows) {
			t.Fatalf("%s is missing", w[0])
		}
		if r := rows[i]; r.id != w[0] || r.rpc != w[1] || r.strength != w[2] || r.says == "" {
			t.Fatalf("row %d is %s (%s, %s), want %v", i, r.id, r.rpc, r.strength, w)
		}
	}
	if len(rows) > len(want) {
		t.Errorf("%s is one too many", rows[len(want)].id)
	}
	packages := make(map[string]testsOf)
	for _, r := range rows {
		if r.tests == "" && r.notYet == "" {
			t.Errorf("%s has neither a test nor a reason", r.id)
		}
		for ref := range strings.SplitSeq(r.tests, "; ") {
			dir, name, ok := strings.Cut(ref, " ")
			if !ok {
				if ref != "" {
					t.Errorf("%s: %q is no test", r.id, ref)
				}
				continue
			}
			if packages[dir] == nil {
				packages[dir] = parseTests(t, dir)
			}
			if err := packages[dir].find(name); err != nil {
				t.Errorf("%s: %s: %v", r.id, dir, err)
			}
		}
	}
}

// TestClauseSums: the last line counts what is above it.
func TestClauseSums(t *testing.T) {
	rows := clauses(t)
	held, except, not := 0, 0, 0
	for _, r := range rows {
		switch {
		case r.tests == "":
			not++
		case r.notYet != "":
			except++
		default:
			held++
		}
	}
	sums := fmt.Sprintf("\n%d clauses: %d enforced, %d with an exception, %d not enforced.\n", len(rows), held, except, not)
	if !strings.HasSuffix(read(t, "docs/clauses.md"), sums) {
		t.Errorf("docs/clauses.md does not end with %q", sums)
	}
}
