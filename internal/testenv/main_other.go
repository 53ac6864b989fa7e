//go:build !linux

package testenv

import (
	"os"
	"testing"
)

// Main runs the tests; there are no namespaces here.
func Main(m *testing.M) { os.Exit(m.Run()) }
