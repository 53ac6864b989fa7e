package csikit_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestReadmeBackend: the backend that README shows is the one that Example runs.
func TestReadmeBackend(t *testing.T) {
	_, rest, ok := strings.Cut(read(t, "example_test.go"), "// README:begin\n")
	code, _, ok2 := strings.Cut(rest, "// README:end\n")
	if !ok || !ok2 {
		t.Fatal("example_test.go has no README:begin and README:end")
	}
	if block := "```go\n" + strings.TrimSpace(code) + "\n```\n"; !strings.Contains(read(t, "README.md"), block) {
		t.Errorf("README.md does not have this block:\n%s", block)
	}
}

// TestReadmeLinks: what README and CONTRIBUTING point at is there.
func TestReadmeLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for _, doc := range []string{"README.md", "CONTRIBUTING.md"} {
		for _, m := range link.FindAllStringSubmatch(read(t, doc), -1) {
			if _, err := os.Stat(filepath.FromSlash(m[1])); err != nil {
				t.Errorf("%s: %v", doc, err)
			}
		}
	}
}

// TestReadmeCommands: each make target that the documents name is in the Makefile.
func TestReadmeCommands(t *testing.T) {
	target := regexp.MustCompile("(?m)(?:`|^    )make ([a-z]+)")
	rules := read(t, "Makefile")
	for _, doc := range []string{"README.md", "CONTRIBUTING.md"} {
		for _, m := range target.FindAllStringSubmatch(read(t, doc), -1) {
			if !strings.Contains(rules, "\n"+m[1]+":") {
				t.Errorf("%s speaks of make %s, and the Makefile has no such target", doc, m[1])
			}
		}
	}
}
