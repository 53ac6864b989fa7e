package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/sparse"
)

// fsFacts are what statfs(2) says of the pool's file system.
type fsFacts struct {
	Type        string
	ID          string
	Total, Free int64 // bytes; Free without what only root may take
	ReadOnly    bool
}

const (
	magicCIFS = 0xFF534D42
	magicSMB2 = 0xFE534D42
	magicZFS  = 0x2FC12FC1
)

var fsNames = map[uint32]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.F2FS_SUPER_MAGIC: "f2fs", magicZFS: "zfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs",
	unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", magicCIFS: "cifs", magicSMB2: "smb2",
	unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_SUPER_MAGIC: "afs",
}

func (p *pool) facts() (fsFacts, error) {
	d, err := p.root.Open(".")
	if err != nil {
		return fsFacts{}, err
	}
	defer func() { _ = d.Close() }()
	var st unix.Statfs_t
	for {
		err = unix.Fstatfs(int(d.Fd()), &st)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fsFacts{}, fmt.Errorf("statfs: %w", err)
	}
	name, ok := fsNames[uint32(st.Type)]
	if !ok {
		name = fmt.Sprintf("%#x", uint32(st.Type))
	}
	block := int64(st.Bsize) //nolint:unconvert // int32 on 386
	return fsFacts{
		Type: name, ID: fmt.Sprintf("%08x%08x", uint32(st.Fsid.Val[0]), uint32(st.Fsid.Val[1])),
		Total: int64(st.Blocks) * block, Free: int64(st.Bavail) * block,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0,
	}, nil
}

// allowed refuses file systems on which volumes would not last.
func (f fsFacts) allowed(dir string, rootFS bool) error {
	switch f.Type {
	case "nfs", "smb", "cifs", "smb2", "9p", "ceph", "afs":
		return refuse("%s is on %s: a pool needs a local file system", dir, f.Type)
	case "overlay", "tmpfs", "ramfs":
		if !rootFS {
			return refuse("%s is on %s: volumes would go with the container or the next boot (Options.AllowRootFS, -allow-root-fs of the example, permits it)", dir, f.Type)
		}
	}
	return nil
}

// renameNew moves a directory to a name that must be free.
func renameNew(from *os.File, name string, to *os.File, newName string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), newName, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Without the flag rename(2) replaces an empty directory alone, and a
		// volume's is never empty.
		err = unix.Renameat(int(from.Fd()), name, int(to.Fd()), newName)
	}
	if errors.Is(err, unix.ENOTEMPTY) {
		err = unix.EEXIST
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: filepath.Join(from.Name(), name), New: filepath.Join(to.Name(), newName), Err: err}
	}
	return nil
}

// allocStep is how much is allocated between two looks at the context.
const allocStep = 64 << 30

// allocate backs the first size bytes of f with blocks, without changing its
// length. What is allocated already stays.
func allocate(ctx context.Context, f *os.File, size int64) error {
	for off := int64(0); off < size; off += allocStep {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n := min(allocStep, size-off)
		for {
			err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
			}
			break
		}
		backends.Progress(ctx, fmt.Sprintf("allocated %d of %d bytes", off+n, size))
	}
	return nil
}

// overwriteInPlace asks btrfs not to write a block elsewhere each time: a file
// that is allocated in full could run out of space otherwise. f must be empty.
func overwriteInPlace(f *os.File, fsType string) error {
	if fsType != "btrfs" {
		return nil
	}
	return sparse.SetNoCOW(f)
}

// hasData reports whether anything was ever written to a file. A file system that
// does not know where its files have holes says yes.
func hasData(f *os.File) (bool, error) {
	_, err := f.Seek(0, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	return err == nil, err
}
