package kubernetes

import (
	"path/filepath"
	"testing"
)

// TestManifests: the apiserver takes what csikit manifests prints, of a driver with
// every ability too. Nothing is made but a namespace.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("../../cmd/csikit/internal/manifests/testdata/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	kubectl(t, "create", "namespace", "storage") // a dry run makes none for what comes after it
	for _, f := range files {
		kubectl(t, "apply", "--dry-run=server", "--validate=strict", "-f", f)
	}
	kubectl(t, "delete", "namespace", "storage", "--wait=false")
}
