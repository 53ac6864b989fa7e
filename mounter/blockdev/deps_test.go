package blockdev

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/backends": "the contract: identities and kinds of errors",
		"golang.org/x/sys":                  "system calls",
	})
	deptest.Never(t, map[string]string{
		"os/exec":       "what a device is and holds is asked of the kernel, never of a program that may fail with the answer \"blank\"",
		"net":           "nothing here is remote",
		"text/template": "it turns off the linker's removal of unused methods",
	})
}
