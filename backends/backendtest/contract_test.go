package backendtest

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/internal/faultpoint": "comes with idempotency; empty in a build without its tag",
		"github.com/csikit/csikit/backends":            "the contract",
		"github.com/csikit/csikit/idempotency":         "one call for one name at a time, as csidriver has it",
	})
}

// contract is every comment of package backends, in one line.
func contract(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("../*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var words []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Comments {
			words = append(words, strings.Fields(c.Text())...)
			words = append(words, "/") // no quotation goes beyond a comment
		}
	}
	return strings.Join(words, " ")
}

// TestQuotations: what a check says that it holds is the contract's own words.
func TestQuotations(t *testing.T) {
	text, names := contract(t), map[string]bool{}
	for _, c := range checks() {
		if c.holds == "" || !strings.Contains(text, c.holds) {
			t.Errorf("%s: not in the contract: %q", c.name, c.holds)
		}
		if names[c.name] {
			t.Errorf("two checks are called %s", c.name)
		}
		names[c.name] = true
		for need := range strings.FieldsSeq(c.needs) {
			if need != "Controller" && need != "Node" && !slices.Contains(interfaces(), need) {
				t.Errorf("%s needs %s, which is no interface", c.name, need)
			}
		}
	}
}

// TestEveryInterface: there is a check for each.
func TestEveryInterface(t *testing.T) {
	var needed []string
	for _, c := range checks() {
		needed = append(needed, strings.Fields(c.needs)...)
	}
	for _, name := range interfaces() {
		if !slices.Contains(needed, name) {
			t.Errorf("no check needs %s", name)
		}
	}
}
