// Package deptest holds a package to what it may import, counting everything that
// comes with it. The reason stands in the test, beside each rule, and in
// the failure.
package deptest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// Only fails the test for every package that the calling test's package depends
// on, test files aside, unless it is of the standard library or its import path
// is, or lies below, one of allowed. Values of allowed are the reasons, for the
// reader.
func Only(t testing.TB, allowed map[string]string) {
	t.Helper()
	g := load(t)
	for _, v := range g.only(allowed) {
		t.Error(v)
	}
}

// Never fails the test for every package that the calling test's package depends
// on, test files aside, whose import path is, or lies below, one of
// forbidden. Values are the reasons.
func Never(t testing.TB, forbidden map[string]string) {
	t.Helper()
	g := load(t)
	for _, v := range g.never(forbidden) {
		t.Error(v)
	}
}

// graph is what a package depends on.
type graph struct {
	root     string
	imports  map[string][]string
	standard map[string]bool
}

// load asks the go command about the package of the working directory, where
// go test runs a test.
func load(t testing.TB) *graph {
	t.Helper()
	testenv.Tool(t, "go")
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-f", `{{.ImportPath}} {{.Standard}}{{range .Imports}} {{.}}{{end}}`, ".")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	g, err := parse(string(out))
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return g
}

// parse reads lines of: path, whether standard, imports. The package itself is
// the last, for go list -deps prints in order of dependency.
func parse(out string) (*graph, error) {
	g := &graph{imports: map[string][]string{}, standard: map[string]bool{}}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		g.root = f[0]
		g.imports[f[0]], g.standard[f[0]] = f[2:], f[1] == "true"
	}
	if g.root == "" {
		return nil, errors.New("no packages")
	}
	return g, nil
}

func (g *graph) only(allowed map[string]string) []string {
	var bad []string
	for _, p := range slices.Sorted(maps.Keys(g.imports)) {
		if _, ok := match(p, allowed); !ok && !g.standard[p] && p != g.root {
			bad = append(bad, fmt.Sprintf("must not depend on %s (%s)", p, g.chain(p)))
		}
	}
	return bad
}

func (g *graph) never(forbidden map[string]string) []string {
	var bad []string
	for _, p := range slices.Sorted(maps.Keys(g.imports)) {
		if why, ok := match(p, forbidden); ok && p != g.root {
			bad = append(bad, fmt.Sprintf("must not depend on %s: %s (%s)", p, why, g.chain(p)))
		}
	}
	return bad
}

// match finds the prefix of whole path elements that p begins with.
func match(p string, prefixes map[string]string) (why string, ok bool) {
	for {
		if why, ok = prefixes[p]; ok {
			return why, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return "", false
		}
		p = p[:i]
	}
}

// chain is the shortest way from the package to the import: a -> b -> c.
func (g *graph) chain(to string) string {
	from := map[string]string{g.root: ""}
	for queue := []string{g.root}; len(queue) > 0; queue = queue[1:] {
		for _, p := range g.imports[queue[0]] {
			if _, seen := from[p]; !seen {
				from[p] = queue[0]
				queue = append(queue, p)
			}
		}
	}
	way := to
	for p := from[to]; p != ""; p = from[p] {
		way = p + " -> " + way
	}
	return way
}
