package fusehost

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	const module = "github.com/csikit/csikit/"
	deptest.Only(t, map[string]string{
		module + "internal/faultpoint": "comes with mounter; empty in a build without its tag",
		module + "backends":            "what a server is",
		module + "mounter":             "the interface that it implements",
		"golang.org/x/sys":             "system calls",
	})
	deptest.Never(t, map[string]string{
		"google.golang.org/grpc": "a host of servers is a small process",
	})
}
