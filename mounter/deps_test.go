package mounter

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	const module = "github.com/csikit/csikit/"
	deptest.Only(t, map[string]string{
		module + "backends":                  "the contract, and backends/command",
		module + "mounter/mnt":               "mounts",
		module + "mounter/blockdev":          "devices",
		module + "mounter/internal/mountapi": "comes with mnt",
		module + "internal/faultpoint":       "names of places where a test kills a driver; empty in a build without its tag",
		"golang.org/x/sys":                   "system calls",
	})
	deptest.Never(t, map[string]string{
		"google.golang.org/grpc": "a driver with its own server can use the engine alone",
		"k8s.io/mount-utils":     "its FormatAndMount formats a device that cannot be read",
	})
}

// TestNoRecursiveDelete: a path that may be a mount is never deleted with what is
// below it.
func TestNoRecursiveDelete(t *testing.T) {
	for _, dir := range []string{".", "mnt", "blockdev", "mountertest"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "RemoveAll" {
					t.Errorf("%s: RemoveAll", fset.Position(n.Pos()))
				}
				return true
			})
		}
	}
}
