package mounter_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// TestRealGrowthCutShort: a resize2fs that is killed leaves what e2fsck does not
// repair unasked. The next stage does, also when the volume was unstaged between, and
// grows it; the data is there. A file system whose growth nobody began is left to
// people, as before.
func TestRealGrowthCutShort(t *testing.T) {
	testenv.Tool(t, "strace")
	for i, write := range []int{1, 2, 3, 4, 20, 40} {
		t.Run(fmt.Sprintf("at write %d", write), func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.formatted("v", "ext2") // which is never grown in use
			must(t, os.Truncate(n.file("v"), 640*mib))
			r.withTool(n, "resize2fs", fmt.Sprintf(
				`exec strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:signal=SIGKILL:when=%d $REAL "$@"`, write))
			if err := r.Stage(t.Context(), r.stageReq("v", "")); err == nil || errors.Is(err, backends.ErrPrecondition) {
				t.Fatalf("stage whose resize2fs is killed: %v", err)
			}
			must(t, r.Close())
			r.start(n)
			if i%2 == 1 {
				r.unstage("v")
			}
			r.stage("v", "")
			r.holds("staging-v/file", "data")
			if got := r.total("staging-v"); got < 480*mib {
				t.Errorf("%d bytes", got)
			}
			r.unstage("v")
			r.gone("v")
		})
	}
	t.Run("nobody's", func(t *testing.T) {
		n := newLoopNode(t)
		r := newRealRig(t, n, n)
		r.formatted("v", "ext2")
		must(t, os.Truncate(n.file("v"), 640*mib))
		killed := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=pwrite64",
			"-e", "inject=pwrite64:signal=SIGKILL:when=40", "resize2fs", "-f", n.file("v"))
		if err := killed.Run(); err == nil {
			t.Fatal("resize2fs was not killed")
		}
		wantKind(t, r.Stage(t.Context(), r.stageReq("v", "")), backends.ErrPrecondition)
	})
}
