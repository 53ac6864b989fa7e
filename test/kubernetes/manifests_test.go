package kubernetes

import (
	"path/filepath"
	"testing"
)

// TestManifests: the apiserver takes what csikit manifests prints, of a driver with
// every ability, and of one without a controller and with the longest name too.
// Nothing is made but namespaces.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("../../cmd/csikit/internal/manifests/testdata/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, ns := range []string{"storage", "0-a"} { // a dry run makes none for what comes after it
		kubectl(t, "create", "namespace", ns)
		t.Cleanup(func() { kubectl(t, "delete", "namespace", ns, "--wait=false") })
	}
	for _, f := range files {
		kubectl(t, "apply", "--dry-run=server", "--validate=strict", "-f", f)
	}
}
