package mounter_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRealLifecycle walks a volume of each type through its life.
func TestRealLifecycle(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			n, r := newRealVolume(t, 320*mib)
			r.stage("v", fsType)
			r.stage("v", fsType)
			r.publish("v", "t1")
			r.publish("v", "t1")
			must(t, os.WriteFile(r.path("t1/file"), []byte("data"), 0o600))
			ro := r.publishReq("v", "t2")
			ro.ReadOnly = true
			must(t, r.Publish(t.Context(), ro))
			if err := os.WriteFile(r.path("t2/file"), []byte("x"), 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("write through the read-only target: %v", err)
			}
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t1")})
			must(t, err)
			if st.Total < 100*mib || st.Total > 320*mib || st.Used <= 0 {
				t.Errorf("stats %+v", st)
			}
			// The driver restarts.
			must(t, r.Close())
			r.start(n)
			r.stage("v", fsType)
			r.publish("v", "t1")
			err = r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
			wantKind(t, err, backends.ErrInUse)
			r.unpublish("v", "t2")
			r.unpublish("v", "t1")
			r.unstage("v")
			r.gone("v")
			r.stage("v", "")
			r.holds("staging-v/file", "data")
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealPublishTwiceUnpublishOnce: the bug that deletes users' files
// elsewhere.
func TestRealPublishTwiceUnpublishOnce(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	r.stage("v", "ext4")
	r.publish("v", "t")
	must(t, os.WriteFile(r.path("t/file"), []byte("data"), 0o600))
	r.publish("v", "t")
	must(t, mnt.Bind(r.path("staging-v"), r.path("t"), mnt.BindOptions{})) // as others stack
	r.unpublish("v", "t")
	if r.isMount("t") {
		t.Error("still mounted")
	}
	if _, err := os.Lstat(r.path("t")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target left: %v", err)
	}
	if b, err := os.ReadFile(r.path("staging-v/file")); string(b) != "data" {
		t.Errorf("data is gone: %q %v", b, err)
	}
	r.unstage("v")
	r.gone("v")
}

// TestRealReadOnlyMode mounts read-only, and the device shows no write.
func TestRealReadOnlyMode(t *testing.T) {
	n, r := newRealVolume(t, 64*mib)
	req := r.stageReq("v", "ext4")
	req.Capability.Mode = backends.MultiNodeReader
	wantKind(t, r.Stage(t.Context(), req), backends.ErrPrecondition) // blank
	r.gone("v")
	run(t, "mkfs.ext4", "-q", "-F", n.file("v"))
	must(t, r.Stage(t.Context(), req))
	if err := os.WriteFile(r.path("staging-v/file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	r.unstage("v")
}

// TestRealGrowAtStage: a device that is bigger than its file system is used
// whole.
func TestRealGrowAtStage(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			n, r := newRealVolume(t, 320*mib)
			r.stage("v", fsType)
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			r.unstage("v")
			must(t, os.Truncate(n.file("v"), 640*mib))
			r.stage("v", fsType)
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("staging-v")})
			must(t, err)
			if st.Total < 480*mib {
				t.Errorf("%d bytes after growing", st.Total)
			}
			r.holds("staging-v/file", "data")
			r.unstage("v")
		})
	}
}

// TestRealExpand grows while published, or says that the next stage will.
func TestRealExpand(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			n, r := newRealVolume(t, 320*mib)
			r.stage("v", fsType)
			r.publish("v", "t")
			req := mounter.ExpandRequest{ID: "v", Path: r.path("t"), Range: backends.CapacityRange{Required: 640 * mib}}
			_, err := r.Expand(t.Context(), req)
			wantKind(t, err, backends.ErrOutOfRange)
			must(t, os.Truncate(n.file("v"), 640*mib))
			size, err := r.Expand(t.Context(), req)
			if errors.Is(err, backends.ErrPrecondition) && fsType == "ext4" {
				t.Logf("no online growth here: %v", err)
				r.unpublish("v", "t")
				r.unstage("v")
				r.stage("v", fsType)
				r.publish("v", "t")
				size, err = r.Expand(t.Context(), req)
			}
			must(t, err)
			if size != 640*mib {
				t.Errorf("size %d", size)
			}
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
			must(t, err)
			if st.Total < 480*mib {
				t.Errorf("%d bytes after growing", st.Total)
			}
			again, err := r.Expand(t.Context(), req)
			if err != nil || again != size {
				t.Errorf("again: %d, %v", again, err)
			}
			r.unpublish("v", "t")
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealBlock: raw block volumes, and what read-only means for them.
func TestRealBlock(t *testing.T) {
	n, r := newRealVolume(t, 16*mib)
	block := backends.Capability{Mode: backends.SingleNodeMultiWriter, Block: true}
	st := r.stageReq("v", "")
	st.Capability = block
	must(t, r.Stage(t.Context(), st))
	if r.isMount("staging-v") {
		t.Error("something is mounted at the staging path")
	}
	pub := r.publishReq("v", "dev/t1")
	pub.Capability = block
	must(t, r.Publish(t.Context(), pub))
	must(t, r.Publish(t.Context(), pub))
	f, err := os.OpenFile(r.path("dev/t1"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("data"), 0)
	must(t, errors.Join(err, f.Sync(), f.Close()))
	if got := n.read("v", 0, 4); got != "data" {
		t.Errorf("read back %q", got)
	}
	mixed := pub
	mixed.Path, mixed.ReadOnly = r.path("dev/t2"), true
	wantKind(t, r.Publish(t.Context(), mixed), backends.ErrPrecondition)
	stats, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("dev/t1")})
	must(t, err)
	if !stats.Block || stats.Total != 16*mib {
		t.Errorf("stats %+v", stats)
	}
	must(t, os.Symlink(n.loop["v"].Path, r.path("kubelets-map")))
	if _, err = r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("kubelets-map")}); err != nil {
		t.Errorf("stats at kubelet's own path: %v", err)
	}
	must(t, os.Truncate(n.file("v"), 32*mib))
	size, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: pub.Path, Range: backends.CapacityRange{Required: 32 * mib}})
	if err != nil || size != 32*mib {
		t.Errorf("expand: %d, %v", size, err)
	}
	r.unpublish("v", "dev/t1")
	must(t, r.Publish(t.Context(), mixed))
	if f, err := os.OpenFile(mixed.Path, os.O_RDWR, 0); err == nil {
		_, err = f.WriteAt([]byte("oops"), 0)
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("write to the read-only device: %v", err)
		}
		must(t, f.Close())
	}
	r.unpublish("v", "dev/t2")
	must(t, r.Publish(t.Context(), pub)) // writable again
	r.unpublish("v", "dev/t1")
	if _, err := os.Lstat(r.path("dev/t1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target left: %v", err)
	}
	r.unstage("v")
	r.gone("v")
}
