package fusehost

import (
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) {
	child()
	testenv.Main(m)
}
