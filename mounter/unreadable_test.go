package mounter_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestUnreadableRecordOfMounts: a record that cannot be read is refused to who wants more of
// the volume, and keeps who undoes it coming back, with the name of the file in the
// answer. Moved away, or put right, it counts from the next call on.
func TestUnreadableRecordOfMounts(t *testing.T) {
	for name, mend := range map[string]func(t *testing.T, file string, good []byte){
		"put right":  func(t *testing.T, file string, good []byte) { must(t, os.WriteFile(file, good, 0o600)) },
		"moved away": func(t *testing.T, file string, _ []byte) { must(t, os.Rename(file, file+".bad")) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.stage()
			r.publish()
			files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*.json"))
			must(t, err)
			good := map[string][]byte{}
			for _, f := range files {
				good[f], err = os.ReadFile(f)
				must(t, err)
				must(t, os.WriteFile(f, []byte(`{"version": 1, "ki`), 0o600))
			}
			must(t, r.Restart())
			ctx := t.Context()
			wantKind(t, r.Stage(ctx, r.stageRequest()), backends.ErrPrecondition)
			wantKind(t, r.Publish(ctx, r.publishRequest()), backends.ErrPrecondition)
			for _, err := range []error{r.Unpublish(ctx, r.unpublishRequest()), r.Unstage(ctx, r.unstageRequest())} {
				wantKind(t, err, backends.ErrUnavailable)
				if !strings.Contains(err.Error(), files[0]) || !strings.Contains(err.Error(), "move it away") {
					t.Errorf("an operator learns nothing from it: %v", err)
				}
			}
			if r.mountsAt(r.target) != 1 || r.mountsAt(r.staging) != 1 {
				t.Error("something was unmounted")
			}
			for _, f := range files {
				mend(t, f, good[f])
			}
			r.unpublish()
			r.unstage()
			if len(r.Kernel.Mounts()) > 0 || r.node.isOpen("v") {
				t.Errorf("left: %v", r.Kernel.Mounts())
			}
		})
	}
}
