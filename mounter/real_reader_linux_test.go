package mounter_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// sum is what the file of a volume holds.
func (n *loopNode) sum(id string) string {
	n.t.Helper()
	f, err := os.Open(n.file(id))
	must(n.t, err)
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(n.t, errors.Join(err, f.Close()))
	return string(h.Sum(nil))
}

// dirty makes volume id a copy of one in use, with something in its journal.
func (r *realRig) dirty(id, fsType string) {
	r.t.Helper()
	r.node.make("first", 320*mib)
	r.stage("first", fsType)
	must(r.t, os.WriteFile(r.path("staging-first/file"), []byte("data"), 0o600))
	run(r.t, "sync", "-f", r.path("staging-first/file"))
	must(r.t, os.WriteFile(r.path("staging-first/more"), []byte("more"), 0o600))
	run(r.t, "sync", r.path("staging-first/more"))
	run(r.t, "cp", "--sparse=always", r.node.file("first"), r.node.file(id))
	r.unstage("first")
}

func (r *realRig) readerReq(id string, mode backends.AccessMode, flags ...string) mounter.StageRequest {
	q := r.stageReq(id, "")
	q.Capability.Mode, q.Capability.Flags = mode, backends.NewFlags(flags...)
	return q
}

// TestRealReaderWritesNothing: what was unmounted in order is read, and not one
// byte of the device changes; the device may be read-only too.
func TestRealReaderWritesNothing(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n, r := newRealVolume(t, 320*mib)
			r.stage("v", fsType)
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			r.unstage("v")
			must(t, os.Truncate(n.file("v"), 400*mib)) // and is not grown
			before := n.sum("v")
			for _, mode := range []backends.AccessMode{backends.MultiNodeReader, backends.SingleNodeReader} {
				must(t, r.Stage(t.Context(), r.readerReq("v", mode)))
				r.holds("staging-v/file", "data")
				if err := os.WriteFile(r.path("staging-v/file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
					t.Errorf("write: %v", err)
				}
				r.unstage("v")
				if n.sum("v") != before {
					t.Error("the device was written to")
				}
			}
			r.gone("v")
		})
	}
}

// TestRealReaderOfDirty: a reader does not replay a journal. It is refused, until
// somebody who may write has staged the volume, or as it is if the CO says so.
func TestRealReaderOfDirty(t *testing.T) {
	for _, fsType := range []string{"ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.dirty("v", fsType)
			before := n.sum("v")
			for _, mode := range []backends.AccessMode{backends.MultiNodeReader, backends.SingleNodeReader} {
				err := r.Stage(t.Context(), r.readerReq("v", mode))
				wantKind(t, err, backends.ErrPrecondition)
				if !strings.Contains(err.Error(), "replay") || !strings.Contains(err.Error(), "mount flag") {
					t.Errorf("the error does not say why, or how to go on: %v", err)
				}
				r.gone("v")
			}
			flag := map[string]string{"xfs": "norecovery", "btrfs": "rescue=nologreplay"}[fsType]
			if flag == "" {
				flag = "noload"
			}
			must(t, r.Stage(t.Context(), r.readerReq("v", backends.MultiNodeReader, flag)))
			r.unstage("v")
			if n.sum("v") != before {
				t.Error("the device was written to")
			}
			r.stage("v", "")
			r.unstage("v")
			must(t, r.Stage(t.Context(), r.readerReq("v", backends.MultiNodeReader)))
			if b, err := os.ReadFile(r.path("staging-v/more")); string(b) != "more" {
				t.Errorf("read back %q, %v", b, err)
			}
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealReaderOfOrphans: the kernel removes what was deleted while it was open at
// every mount, also where it does not replay; not for a reader, unless the device
// keeps the kernel from it.
func TestRealReaderOfOrphans(t *testing.T) {
	for _, fsType := range []string{"ext3", "ext4"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.formatted("first", fsType)
			r.stage("first", "")
			f, err := os.Create(r.path("staging-first/deleted"))
			must(t, err)
			must(t, f.Sync())
			must(t, os.Remove(f.Name()))
			must(t, f.Sync())
			run(t, "fsfreeze", "-f", r.path("staging-first"))
			run(t, "cp", "--sparse=always", n.file("first"), n.file("v"))
			run(t, "fsfreeze", "-u", r.path("staging-first"))
			must(t, f.Close())
			r.unstage("first")
			before := n.sum("v")
			for _, flags := range [][]string{nil, {"noload"}} {
				wantKind(t, r.Stage(t.Context(), r.readerReq("v", backends.MultiNodeReader, flags...)), backends.ErrPrecondition)
			}
			_, err = n.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: "v"})
			must(t, err)
			run(t, "blockdev", "--setro", n.loop["v"].Path)
			must(t, r.Stage(t.Context(), r.readerReq("v", backends.MultiNodeReader, "noload")))
			r.unstage("v")
			if n.sum("v") != before {
				t.Error("the device was written to")
			}
			r.stage("v", "")
			r.unstage("v")
			must(t, r.Stage(t.Context(), r.readerReq("v", backends.MultiNodeReader)))
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealReadOnlyFlag: where the mode lets this node write, a mount with "ro" is
// replayed as mount(8) does it, unless the device cannot be written to.
func TestRealReadOnlyFlag(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.dirty("v", fsType)
			_, err := n.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: "v"})
			must(t, err)
			run(t, "blockdev", "--setro", n.loop["v"].Path)
			before := n.sum("v")
			wantKind(t, r.Stage(t.Context(), r.readerReq("v", backends.SingleNodeWriter, "ro")), backends.ErrPrecondition)
			if n.sum("v") != before {
				t.Error("the device was written to")
			}
			_, err = n.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: "v"})
			must(t, err)
			run(t, "blockdev", "--setrw", n.loop["v"].Path)
			must(t, r.Stage(t.Context(), r.readerReq("v", backends.SingleNodeWriter, "ro")))
			if b, err := os.ReadFile(r.path("staging-v/more")); string(b) != "more" {
				t.Errorf("read back %q, %v", b, err)
			}
			r.unstage("v")
			r.gone("v")
		})
	}
}
