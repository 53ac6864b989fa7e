package sanity

import (
	"fmt"
	"os"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// TestMain does what the main of a command does that uses Check. Run's child has
// arguments.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		testenv.Main(m)
		return
	}
	was, err := Child()
	if err != nil || !was {
		fmt.Fprintln(os.Stderr, "a test binary without arguments is Check's child:", was, err)
		os.Exit(1)
	}
}
