package crash

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// linked are the directories of this module's packages of which the driver is made.
func linked(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.Dir}}{{end}}{{end}}", loopfile).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// names are the fault points in a directory, with where they are.
func names(t *testing.T, dir string) map[string][]token.Position {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]token.Position{}
	fset := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isPoint(call, f.Name.Name) {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the name of a fault point is no literal", fset.Position(call.Pos()))
				return true
			}
			name, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = append(all[name], fset.Position(call.Pos()))
			return true
		})
	}
	return all
}

// isPoint: faultpoint.Reach("name"), or in package loopfile b.step("name"), which is
// that and a test's own.
func isPoint(call *ast.CallExpr, pkg string) bool {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) != 1 {
		return false
	}
	x, _ := fun.X.(*ast.Ident)
	return fun.Sel.Name == "Reach" && x != nil && x.Name == "faultpoint" || fun.Sel.Name == "step" && pkg == "loopfile"
}

// TestNames: every fault point of this module has a name of its own, which begins
// with its package's.
func TestNames(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}} {{.Name}}", "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	where := map[string][]token.Position{}
	for line := range strings.Lines(string(out)) {
		dir, pkg, _ := strings.Cut(strings.TrimSpace(line), " ")
		for name, at := range names(t, dir) {
			where[name] = append(where[name], at...)
			parts := strings.Split(name, ".")
			if !slices.Contains(parts[:max(1, len(parts)-1)], pkg) {
				t.Errorf("%v: %q does not begin with the package, %s", at, name, pkg)
			}
		}
	}
	if len(where) < 50 {
		t.Errorf("only %d fault points found", len(where))
	}
	for name, at := range where {
		if len(at) > 1 {
			t.Errorf("%q is the name of several: %v", name, at)
		}
	}
}

// elsewhere are fault points of the driver that no RPC of the matrix can reach here,
// and at which the package's own tests kill.
var elsewhere = map[string]string{
	"loopfile.copy.part":    "of a copy of more than 4 GiB",
	"loopfile.modify.saved": "limits of a volume's I/O want cgroup v2",
}

// everyName: every fault point of the driver is reached by an RPC of the matrix.
func (m *matrix) everyName(t *testing.T) {
	t.Helper()
	reached := map[string]bool{}
	for _, r := range m.rows {
		if r.ref == nil {
			return // which is a finding
		}
		for _, k := range r.ref.points {
			reached[k.point] = true
		}
	}
	for _, dir := range linked(t) {
		for name, at := range names(t, dir) {
			why, other := elsewhere[name]
			switch {
			case reached[name] && other:
				t.Errorf("%q is reached, and listed as not (%s)", name, why)
			case !reached[name] && !other:
				t.Errorf("%v: no RPC of the matrix reaches %q", at, name)
			case other && !inTests(t, dir, name):
				t.Errorf("no test in %s kills at %q", dir, name)
			}
		}
	}
}

// inTests: a test in the directory speaks of the name.
func inTests(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(b), strconv.Quote(name))
	})
}
