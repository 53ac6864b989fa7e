package mounter_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

func (r *realRig) total(path string) int64 {
	r.t.Helper()
	st, err := r.Stats(r.t.Context(), mounter.StatsRequest{ID: "v", Path: r.path(path)})
	must(r.t, err)
	return st.Total
}

// TestRealGrowCopyInUse: a bigger volume that was made of one in use, as a restore
// makes it: its journal is replayed, and it is grown.
func TestRealGrowCopyInUse(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.dirty("v", fsType)
			must(t, os.Truncate(n.file("v"), 640*mib))
			r.stage("v", "")
			if got := r.total("staging-v"); got < 480*mib {
				t.Errorf("%d bytes", got)
			}
			r.holds("staging-v/file", "data")
			if b, _ := os.ReadFile(r.path("staging-v/more")); string(b) != "more" {
				t.Errorf("read back %q", b)
			}
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealGrowBtrfsDevice2: the only device of a btrfs need not be its first.
func TestRealGrowBtrfsDevice2(t *testing.T) {
	testenv.Tool(t, "mkfs.btrfs", "btrfs")
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("first", 320*mib)
	n.make("v", 320*mib)
	for _, id := range []string{"first", "v"} {
		q := r.stageReq(id, "")
		q.Capability.Block = true
		must(t, r.Stage(t.Context(), q))
	}
	dir := t.TempDir()
	run(t, "mkfs.btrfs", "-f", "-q", n.loop["first"].Path)
	must(t, unix.Mount(n.loop["first"].Path, dir, "btrfs", 0, ""))
	must(t, os.WriteFile(dir+"/file", []byte("data"), 0o600))
	run(t, "btrfs", "device", "add", n.loop["v"].Path, dir)
	run(t, "btrfs", "device", "remove", n.loop["first"].Path, dir)
	must(t, unix.Unmount(dir, 0))
	r.unstage("first")
	r.unstage("v")

	must(t, os.Truncate(n.file("v"), 640*mib))
	r.stage("v", "btrfs")
	if got := r.total("staging-v"); got != 640*mib {
		t.Errorf("%d bytes after growing at stage", got)
	}
	r.publish("v", "t")
	must(t, os.Truncate(n.file("v"), 960*mib))
	_, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: r.path("t"), Range: backends.CapacityRange{Required: 960 * mib}})
	must(t, err)
	if got := r.total("t"); got != 960*mib {
		t.Errorf("%d bytes after expanding", got)
	}
	r.holds("t/file", "data")
	r.unpublish("v", "t")
	r.unstage("v")
	r.gone("v")
}
