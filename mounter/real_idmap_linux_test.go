package mounter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

// mapped is a backend whose volumes have their owners mapped.
type mapped struct {
	backends.Node
	idmap []backends.IDMap
}

func (m mapped) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	src, err := m.Node.OpenVolume(ctx, req)
	if err == nil {
		src.IDMap = m.idmap
	}
	return src, err
}

func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	st, err := os.Lstat(path)
	must(t, err)
	s := st.Sys().(*syscall.Stat_t)
	return s.Uid, s.Gid
}

var shifted = []backends.IDMap{{Volume: 0, Node: 100_000, Count: 1000}, {Volume: 5000, Node: 7, Count: 1}}

// needsMapping skips the test where owners cannot be mapped.
func needsMapping(t *testing.T) {
	t.Helper()
	testenv.Root(t)
	if !mountapi.Has(mountapi.Context | mountapi.Tree) {
		t.Skip("this is of the newer calls")
	}
	dir, target := t.TempDir(), t.TempDir()
	err := mnt.Bind(dir, target, mnt.BindOptions{Owners: mnt.OwnersOf(shifted)})
	testenv.UserNamespace(t, err)
	must(t, err)
	_, err = mnt.Unmount(target)
	must(t, err)
}

// TestRealOwnersMapped: files of the volume's root are those of another user here,
// at the staging path and at every target, and what that user makes is root's.
func TestRealOwnersMapped(t *testing.T) {
	needsMapping(t)
	dir := filepath.Join(t.TempDir(), "volume")
	must(t, os.Mkdir(dir, 0o755))
	for _, name := range []string{"ext4", "xfs", "btrfs", "dir"} {
		t.Run(name, func(t *testing.T) {
			n := newLoopNode(t)
			var node backends.Node = n
			fsType := name
			if name == "dir" {
				node, fsType = fixed{backends.Source{Dir: dir}}, ""
			} else {
				n.make("v", 320*mib)
			}
			r := newRealRig(t, node, n)
			r.stage("v", fsType)
			must(t, os.WriteFile(r.path("staging-v/root"), nil, 0o600))
			must(t, os.WriteFile(r.path("staging-v/other"), nil, 0o600))
			must(t, os.Chown(r.path("staging-v/other"), 5000, 5000))
			r.unstage("v")

			must(t, r.Close())
			r.start(mapped{node, shifted})
			r.stage("v", fsType)
			r.stage("v", fsType)
			r.publish("v", "t")
			for _, at := range []string{"staging-v", "t"} {
				if u, g := owner(t, r.path(at+"/root")); u != 100_000 || g != 100_000 {
					t.Errorf("%s: root's file is %d:%d's", at, u, g)
				}
				if u, g := owner(t, r.path(at+"/other")); u != 7 || g != 7 {
					t.Errorf("%s: the other file is %d:%d's", at, u, g)
				}
			}
			if err := os.WriteFile(r.path("t/nobody"), nil, 0o600); !errors.Is(err, unix.EOVERFLOW) {
				t.Errorf("a file of root, who is not in the map: %v", err)
			}
			must(t, os.Chown(r.path("t/other"), 100_999, 100_001))
			r.unpublish("v", "t")
			r.unstage("v")

			must(t, r.Close())
			r.start(node)
			r.stage("v", fsType)
			if u, g := owner(t, r.path("staging-v/other")); u != 999 || g != 1 {
				t.Errorf("on the disk it is %d:%d's", u, g)
			}
			r.unstage("v")
		})
	}
}

// TestRealOwnersNotMapped: where it cannot be done nothing is mounted.
func TestRealOwnersNotMapped(t *testing.T) {
	needsMapping(t)
	dir := filepath.Join(t.TempDir(), "volume")
	must(t, os.Mkdir(dir, 0o755))
	twice := filepath.Join(t.TempDir(), "twice")
	must(t, os.Mkdir(twice, 0o755))
	must(t, mnt.Bind(dir, twice, mnt.BindOptions{Owners: mnt.OwnersOf(shifted)}))
	t.Cleanup(func() {
		_, err := mnt.Unmount(twice)
		must(t, err)
	})
	for name, c := range map[string]struct {
		src   backends.Source
		idmap []backends.IDMap
		hide  mountapi.Part
		want  error
	}{
		"file system": {backends.Source{Mount: &backends.Mount{Source: "none", FSType: "mqueue"}}, shifted, mountapi.None, backends.ErrPrecondition},
		"old mount":   {backends.Source{Mount: &backends.Mount{Source: "none", FSType: "tmpfs"}}, shifted, mountapi.All, backends.ErrPrecondition},
		"old bind":    {backends.Source{Dir: dir}, shifted, mountapi.All, backends.ErrPrecondition},
		"twice":       {backends.Source{Dir: twice}, shifted, mountapi.None, backends.ErrPrecondition},
		"empty":       {backends.Source{Dir: dir}, []backends.IDMap{{}}, mountapi.None, backends.ErrInvalid},
		"too far":     {backends.Source{Dir: dir}, []backends.IDMap{{Node: 1<<32 - 2, Count: 5}}, mountapi.None, backends.ErrInvalid},
		"overlapping": {backends.Source{Dir: dir}, []backends.IDMap{{Count: 5}, {Node: 3, Count: 5}}, mountapi.None, backends.ErrPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(mountapi.Hide(c.hide))
			r := newRealRig(t, mapped{fixed{c.src}, c.idmap}, newLoopNode(t))
			wantKind(t, r.Stage(t.Context(), r.stageReq("v", "")), c.want)
			if r.isMount("staging-v") || len(r.Volumes()) > 0 {
				t.Error("mounted, or remembered")
			}
		})
	}
}
