package kmount

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	const module = "github.com/csikit/csikit/"
	deptest.Only(t, map[string]string{
		module + "internal/faultpoint": "comes with mounter; empty in a build without its tag",
		module + "backends":            "error kinds, secrets, backends/command",
		module + "mounter":             "the engine and its pieces",
		"k8s.io/mount-utils":           "what this package adapts; nothing else imports it",
		"k8s.io/klog/v2":               "comes with mount-utils",
		"k8s.io/utils":                 "comes with mount-utils; exec.Interface",
		"github.com/go-logr/logr":      "comes with klog",
		"github.com/moby/sys":          "comes with mount-utils",
		"golang.org/x/sys":             "system calls",
	})
	deptest.Never(t, map[string]string{
		"google.golang.org/grpc": "old code has its own server",
		"k8s.io/client-go":       "mount-utils does not need it",
	})
}
