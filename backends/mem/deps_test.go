package mem

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/backends": "the contract; a test double brings nothing else into a test",
	})
	deptest.Never(t, map[string]string{"testing": "tests stay in tests"})
}
