package mounter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRealPublishUnstaged: nothing is written to the node's own disk.
func TestRealPublishUnstaged(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	must(t, os.Mkdir(r.path("staging-v"), 0o700))
	wantKind(t, r.Publish(t.Context(), r.publishReq("v", "t")), backends.ErrPrecondition)
	r.stage("v", "ext4")
	if _, err := mnt.Unmount(r.path("staging-v")); err != nil {
		t.Fatal(err)
	}
	wantKind(t, r.Publish(t.Context(), r.publishReq("v", "t")), backends.ErrPrecondition)
	if _, err := os.Lstat(r.path("t")); err == nil {
		t.Error("a target was made")
	}
	r.unstage("v")
	r.gone("v")
}

// TestRealBusy: who is in the way is named, and the CO comes back.
func TestRealBusy(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	r.stage("v", "ext4")
	r.publish("v", "t")
	f, err := os.Create(r.path("t/file"))
	must(t, err)
	err = r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: r.path("t")})
	wantKind(t, err, backends.ErrUnavailable)
	if !errors.Is(err, unix.EBUSY) && !strings.Contains(err.Error(), "busy") {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"process " + strconv.Itoa(os.Getpid()) + " (", " by fd/"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	must(t, f.Close())
	r.unpublish("v", "t")
	r.unstage("v")
	r.gone("v")
}

// fixed is a backend of one source.
type fixed struct{ src backends.Source }

func (f fixed) OpenVolume(context.Context, backends.OpenVolumeRequest) (*backends.Source, error) {
	src := f.src
	return &src, nil
}

func (fixed) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// TestRealDirAndMount: directories and what is no device.
func TestRealDirAndMount(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(t.TempDir(), "volume")
	must(t, os.Mkdir(dir, 0o755))
	for name, src := range map[string]backends.Source{
		"dir":   {Dir: dir},
		"mount": {Mount: &backends.Mount{Source: "memory", FSType: "tmpfs", Options: []string{"size=1m"}}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, fixed{src}, n)
			req := r.stageReq("v", "")
			req.Capability.Group = "4242"
			req.Capability.Flags = backends.NewFlags("noexec", "nosuid")
			must(t, r.Stage(t.Context(), req))
			pub := r.publishReq("v", "t")
			pub.Capability.Group = "4242"
			must(t, r.Publish(t.Context(), pub))
			must(t, os.WriteFile(r.path("t/file"), []byte("data"), 0o600))
			pub.Path, pub.ReadOnly = r.path("t2"), true
			must(t, r.Publish(t.Context(), pub))
			if err := os.WriteFile(r.path("t2/file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("write: %v", err)
			}
			must(t, r.Close())
			r.start(fixed{src})
			must(t, r.Stage(t.Context(), req))
			must(t, r.Publish(t.Context(), pub))
			mounts, err := mnt.At(r.path("t"))
			must(t, err)
			if len(mounts) != 1 || !strings.Contains(strings.Join(mounts[0].Options, ","), "noexec") {
				t.Errorf("mounts %+v", mounts)
			}
			st, err := os.Stat(r.path("staging-v"))
			must(t, err)
			if gid := st.Sys().(*syscall.Stat_t).Gid; gid != 4242 || (st.Mode()&os.ModeSetgid != 0) != (name == "dir") {
				t.Errorf("group %d, mode %v", gid, st.Mode())
			}
			r.unpublish("v", "t")
			r.unpublish("v", "t2")
			r.unstage("v")
			if r.isMount("staging-v") || len(r.Volumes()) > 0 {
				t.Error("still staged")
			}
		})
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); string(b) != "data" {
		t.Errorf("the volume holds %q, %v", b, err)
	}
}

// TestRealDirRenamed: a directory that the backend moved away, or deleted, can
// still be unstaged.
func TestRealDirRenamed(t *testing.T) {
	testenv.Root(t)
	for name, lose := range map[string]func(string) error{
		"renamed": func(d string) error { return os.Rename(d, d+"-trash") },
		"deleted": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "volume")
			must(t, os.Mkdir(dir, 0o755))
			r := newRealRig(t, fixed{backends.Source{Dir: dir}}, newLoopNode(t))
			r.stage("v", "")
			r.publish("v", "t")
			must(t, lose(dir))
			r.unpublish("v", "t")
			r.unstage("v")
			if r.isMount("staging-v") {
				t.Error("still staged")
			}
		})
	}
}

// TestRealSecondStagingPath binds the first one.
func TestRealSecondStagingPath(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	r.stage("v", "ext4")
	must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
	second := r.stageReq("v", "ext4")
	second.Path = r.path("second")
	second.Capability.Mode = backends.MultiNodeReader
	must(t, r.Stage(t.Context(), second))
	if b, err := os.ReadFile(r.path("second/file")); string(b) != "data" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := os.WriteFile(r.path("second/file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	r.unstage("v")
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: second.Path}))
	r.gone("v")
}

// TestExt4GrowsOnline needs CAP_SYS_RESOURCE in the kernel's own namespace.
func TestExt4GrowsOnline(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	n, r := newRealVolume(t, 64*mib)
	r.stage("v", "ext4")
	r.publish("v", "t")
	must(t, os.Truncate(n.file("v"), 128*mib))
	size, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: r.path("t"), Range: backends.CapacityRange{Required: 128 * mib}})
	if err != nil || size != 128*mib {
		t.Fatalf("%d, %v", size, err)
	}
	st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
	if err != nil || st.Total < 96*mib {
		t.Errorf("%+v, %v", st, err)
	}
	// And at stage, after the device grew unseen.
	r.unpublish("v", "t")
	r.unstage("v")
	must(t, os.Truncate(n.file("v"), 256*mib))
	r.stage("v", "ext4")
	if st, err = r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("staging-v")}); err != nil || st.Total < 200*mib {
		t.Errorf("%+v, %v", st, err)
	}
	r.unstage("v")
	r.gone("v")
}
