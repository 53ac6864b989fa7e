package nfs

import (
	"fmt"
	"maps"
	"os"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// TestMain is a driver's main: the workers of the tests are this program.
func TestMain(m *testing.M) {
	if IsWorker() {
		can := tasks()
		maps.Copy(can, testTasks())
		if err := serveWorker(os.Stdin, os.Stdout, can); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(envChild) != "" {
		if err := obey(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}
