package kubeletsock_test

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, nil) // a server and a command have no more in common than names
}
