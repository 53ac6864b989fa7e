package mnt_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// A driver that takes only this package must get only this package.
func TestImports(t *testing.T) {
	testenv.Tool(t, "go")
	allowed := map[string]string{
		"github.com/csikit/csikit/mounter/mnt":               "the package itself",
		"github.com/csikit/csikit/mounter/internal/mountapi": "older kernels, for tests",
		"github.com/csikit/csikit/backends":                  "error kinds",
		"golang.org/x/sys/unix":                              "the system calls",
	}
	for _, goos := range []string{"linux", "darwin"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
		cmd.Env = append(os.Environ(), "GOOS="+goos)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for p := range strings.FieldsSeq(string(out)) {
			if allowed[p] == "" {
				t.Errorf("%s: imports %s", goos, p)
			}
		}
	}
}
