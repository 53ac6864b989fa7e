package mounter_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRealUnreadableDevice: a device that cannot be read is not blank. The error
// is the kernel's: the file behind the loop device is cut while it is attached.
func TestRealUnreadableDevice(t *testing.T) {
	for name, left := range map[string]int64{"all of it": 0, "the tail": 60 * mib} {
		t.Run(name, func(t *testing.T) {
			n, r := newRealVolume(t, 64*mib)
			r.stage("v", "ext4")
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			r.unstage("v")
			_, err := n.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: "v"})
			must(t, err)
			must(t, os.Truncate(n.file("v"), left))
			err = r.Stage(t.Context(), r.stageReq("v", "ext4"))
			wantKind(t, err, backends.ErrUnavailable)
			if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), n.loop["v"].Path) {
				t.Errorf("the error says neither EIO nor the device: %v", err)
			}
			if r.isMount("staging-v") {
				t.Error("mounted")
			}
			if st, err := os.Stat(n.file("v")); err != nil || st.Size() != left {
				t.Errorf("something was written: %v, %v", st, err)
			}
			if left > 0 { // the disk recovers, and nothing is lost
				must(t, os.Truncate(n.file("v"), 64*mib))
				r.stage("v", "ext4")
				r.holds("staging-v/file", "data")
			}
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealForeignData: data anywhere that is looked at, without a signature or
// with a foreign one, is never formatted.
func TestRealForeignData(t *testing.T) {
	for name, offset := range map[string]int64{"head": 4096, "tail": 64*mib - 512} {
		t.Run(name, func(t *testing.T) {
			n, r := newRealVolume(t, 64*mib)
			n.write("v", offset, "somebody's data")
			for _, fsType := range []string{"ext4", "xfs", ""} {
				err := r.Stage(t.Context(), r.stageReq("v", fsType))
				wantKind(t, err, backends.ErrPrecondition)
				if !strings.Contains(err.Error(), fmt.Sprint(offset)) || !strings.Contains(err.Error(), "wipefs") {
					t.Errorf("the error does not say where, or how to go on: %v", err)
				}
			}
			if got := n.read("v", offset, 15); got != "somebody's data" {
				t.Errorf("read back %q", got)
			}
			r.gone("v")
		})
	}
}

// TestRealOtherType: what is on disk stays, whatever is asked for.
func TestRealOtherType(t *testing.T) {
	_, r := newRealVolume(t, 320*mib)
	r.stage("v", "ext4")
	must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
	r.unstage("v")
	err := r.Stage(t.Context(), r.stageReq("v", "xfs"))
	wantKind(t, err, backends.ErrPrecondition)
	if s := err.Error(); !strings.Contains(s, "ext4") || !strings.Contains(s, "xfs") {
		t.Errorf("the error does not say both: %v", err)
	}
	r.gone("v")
	r.stage("v", "")
	r.holds("staging-v/file", "data")
	r.unstage("v")
}

// TestRealWrongDevice: the right path with another disk behind it.
func TestRealWrongDevice(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, swapped{n}, n)
	n.make("v", 64*mib)
	n.make("other", 64*mib)
	err := r.Stage(t.Context(), r.stageReq("v", "ext4"))
	wantKind(t, err, backends.ErrPrecondition)
	if _, ok := errors.AsType[*blockdev.MismatchError](err); !ok {
		t.Errorf("got %v", err)
	}
	if r.isMount("staging-v") {
		t.Error("mounted")
	}
	if got := n.read("other", 1024, 512); strings.Trim(got, "\x00") != "" {
		t.Error("the other disk was written to")
	}
}

// swapped is a backend whose udev link went stale.
type swapped struct{ *loopNode }

func (s swapped) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	src, err := s.loopNode.OpenVolume(ctx, req)
	if err != nil {
		return nil, err
	}
	other, err := s.loopNode.OpenVolume(ctx, backends.OpenVolumeRequest{ID: "other"})
	if err != nil {
		return nil, err
	}
	src.Device.Path = other.Device.Path
	return src, nil
}

// TestRealDoneIsNeverFormatted: the backend says that there was a file system.
func TestRealDoneIsNeverFormatted(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, loopRecorder{n}, n)
	n.make("v", 64*mib)
	n.format["v"], n.fsType["v"] = backends.FormatDone, "ext4"
	wantKind(t, r.Stage(t.Context(), r.stageReq("v", "ext4")), backends.ErrPrecondition)
	n.format["v"], n.fsType["v"] = backends.FormatNever, ""
	n.write("v", 8192, "the last tenant's")
	r.stage("v", "ext4")
	if n.format["v"] != backends.FormatDone || n.fsType["v"] != "ext4" {
		t.Errorf("recorded %s %s", n.format["v"], n.fsType["v"])
	}
	r.unstage("v")
	r.gone("v")
}

// TestRealDefaultTypeChanged: a release with another default type mounts what the
// one before made, with a CO that names no type; whoever names another one than is
// there is refused, and nothing is formatted.
func TestRealDefaultTypeChanged(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	release := func(types ...string) {
		must(t, r.Close())
		e, err := mounter.New(n, &mounter.Options{StateDir: r.state, AllowVolatileState: true, FSTypes: types})
		must(t, err)
		must(t, e.Start(t.Context()))
		r.Engine = e
	}
	fsType := func(id string) string {
		mounts, err := mnt.At(r.path("staging-" + id))
		must(t, err)
		return mounts[0].FSType
	}
	release("ext4", "xfs")
	r.formatted("v", "")
	r.stage("v", "")
	release("xfs") // with the volume in use
	r.stage("v", "")
	r.unstage("v")
	before := n.sum("v")
	wantKind(t, r.Stage(t.Context(), r.stageReq("v", "xfs")), backends.ErrPrecondition)
	if n.sum("v") != before {
		t.Error("something was written")
	}
	r.stage("v", "")
	if b, _ := os.ReadFile(r.path("staging-v/file")); string(b) != "data" || fsType("v") != "ext4" {
		t.Errorf("read back %q from %s", b, fsType("v"))
	}
	wantKind(t, r.Stage(t.Context(), r.stageReq("v", "xfs")), backends.ErrIncompatible)
	r.formatted("new", "")
	r.stage("new", "")
	if fsType("new") != "xfs" {
		t.Errorf("a new volume has %s", fsType("new"))
	}
	r.unstage("new")
	r.unstage("v")
	r.gone("v")
}
