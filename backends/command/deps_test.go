package command

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

// Every backend links this package, and a driver may adopt it alone.
func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/backends": "the error kinds, Secrets and Busy",
		"golang.org/x/sys":                  "waitid and memfd",
	})
}
