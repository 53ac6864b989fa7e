package journal

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	// Nothing but the standard library: an existing driver takes this package alone.
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/internal/faultpoint": "names of places where a test kills a driver; empty in a build without its tag",
	})
	deptest.Never(t, map[string]string{
		"net":           "it is a directory",
		"text/template": "it turns off the linker's removal of unused methods",
	})
}
