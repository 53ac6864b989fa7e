package backends

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	// Nothing but the standard library: a backend must be testable without gRPC,
	// and what it is written against must not move with other people's releases.
	deptest.Only(t, nil)
	deptest.Never(t, map[string]string{
		"net/http":      "a driver that serves no HTTP must not link it",
		"text/template": "it turns off the linker's removal of unused methods",
	})
}
