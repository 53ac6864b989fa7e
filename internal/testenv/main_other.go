//go:build !linux

package testenv

import (
	"os"
	"testing"
)

// Main runs the tests; there are no namespaces here.
func Main(m *testing.M) { os.Exit(m.Run()) }

// DetachLoops finds nothing: there are no loop devices here.
func DetachLoops(string) []string { return nil }
