package csiclient

import (
	"net"
	"path/filepath"
	"testing"
)

// TestSameHost: a socket of this process, and one that nobody listens at.
func TestSameHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if SameHost(path) || SameHost("") {
		t.Error("nobody is here")
	}
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	if !SameHost(path) {
		t.Error("this process has other mounts than itself")
	}
}
