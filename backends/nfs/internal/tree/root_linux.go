package tree

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// Root is a directory below which everything stays. "" and "." are itself.
type Root struct {
	f    *os.File
	name string
	nfs  bool // names are durable when a call has been answered (RFC 8881, 18.26.4 and others)
}

// Open opens a directory by a path that is trusted.
func Open(dir string) (*Root, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(int(f.Fd()), &st) }); err != nil {
		return nil, errors.Join(&os.PathError{Op: "statfs", Path: dir, Err: err}, f.Close())
	}
	return &Root{f, dir, int64(st.Type) == unix.NFS_SUPER_MAGIC}, nil //nolint:unconvert // int32 on 386
}

// Close ends its use.
func (r *Root) Close() error { return r.f.Close() }

// Name is the path with which it was opened.
func (r *Root) Name() string { return r.name }

func (r *Root) fd() int { return int(r.f.Fd()) }

// Sub opens a directory below as a root of its own.
func (r *Root) Sub(p string) (*Root, error) {
	f, err := r.open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f, path.Join(r.name, p), r.nfs}, nil
}

// SubMounted is Sub where other file systems may be mounted on the way: the
// snapshots of a file server are some.
func (r *Root) SubMounted(p string) (*Root, error) {
	f, err := openat2(r.fd(), p, path.Join(r.name, p), unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath&^unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, err
	}
	return &Root{f, path.Join(r.name, p), r.nfs}, nil
}

func (r *Root) open(p string, flags int, mode uint32) (*os.File, error) {
	return openat2(r.fd(), p, path.Join(r.name, p), flags, mode, beneath)
}

// openat2 opens beneath dirfd; name is for messages.
func openat2(dirfd int, p, name string, flags int, mode uint32, resolve uint64) (*os.File, error) {
	if p == "" {
		p = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NOFOLLOW | unix.O_LARGEFILE
	}
	for range 64 {
		fd, err := unix.Openat2(dirfd, p, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		default:
			return nil, &os.PathError{Op: "openat2", Path: name, Err: err}
		}
	}
	return nil, &os.PathError{Op: "openat2", Path: name, Err: unix.EAGAIN}
}

// parent opens the directory of p; base is its last component.
func (r *Root) parent(p string) (dir *os.File, base string, err error) {
	d, base := path.Split(p)
	if base == "" || base == "." || base == ".." {
		return nil, "", &os.PathError{Op: "open", Path: path.Join(r.name, p), Err: unix.EINVAL}
	}
	dir, err = r.open(path.Clean(d), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return dir, base, err
}

// at runs f with the directory of p and its last component.
func (r *Root) at(op, p string, f func(dirfd int, base string) error) error {
	dir, base, err := r.parent(p)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // nothing is written by it
	return r.wrap(op, p, again(func() error { return f(int(dir.Fd()), base) }))
}

func (r *Root) wrap(op, p string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path.Join(r.name, p), Err: err}
}

// again repeats what a signal interrupted.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Info is what is known of a file, not of what a symbolic link points to.
type Info struct {
	Ino      uint64
	Dev      uint64
	Mode     uint32 // with the type
	UID, GID uint32
	Size     int64
	Blocks   int64 // of 512 bytes
	Nlink    uint64
	Rdev     uint64
	Atime    unix.Timespec
	Mtime    unix.Timespec
	Ctime    unix.Timespec
}

// Dir tells whether it is a directory.
func (i Info) Dir() bool { return i.Mode&unix.S_IFMT == unix.S_IFDIR }

// Regular tells whether it is a regular file.
func (i Info) Regular() bool { return i.Mode&unix.S_IFMT == unix.S_IFREG }

// Changed is when it was changed last, by the clock of its file system.
func (i Info) Changed() time.Time { return time.Unix(i.Ctime.Unix()) }

//nolint:unconvert // the types differ between platforms
func infoOf(st *unix.Stat_t) Info {
	return Info{
		Ino: uint64(st.Ino), Dev: uint64(st.Dev), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size,
		Blocks: int64(st.Blocks), Nlink: uint64(st.Nlink), Rdev: uint64(st.Rdev),
		Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim,
	}
}

func statAt(dirfd int, name string) (Info, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT) })
	return infoOf(&st), err
}

func statOf(f *os.File) (Info, error) {
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return Info{}, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return infoOf(&st), nil
}

// Stat is of the root itself.
func (r *Root) Stat() (Info, error) { return statOf(r.f) }

// Lstat is of what is at p.
func (r *Root) Lstat(p string) (i Info, err error) {
	if p == "" || p == "." {
		return r.Stat()
	}
	err = r.at("lstat", p, func(dirfd int, base string) (err error) {
		i, err = statAt(dirfd, base)
		return err
	})
	return i, err
}

// Mkdir makes a directory.
func (r *Root) Mkdir(p string, mode fs.FileMode) error {
	return r.at("mkdir", p, func(dirfd int, base string) error { return unix.Mkdirat(dirfd, base, uint32(mode.Perm())) })
}

// Rmdir removes an empty directory.
func (r *Root) Rmdir(p string) error {
	return r.at("rmdir", p, func(dirfd int, base string) error { return unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR) })
}

// Unlink removes what is no directory.
func (r *Root) Unlink(p string) error {
	return r.at("unlink", p, func(dirfd int, base string) error { return unix.Unlinkat(dirfd, base, 0) })
}

// Link gives the file from a second name, which must be free.
func (r *Root) Link(from, to string) error {
	return r.two("link", from, to, func(a int, x string, b int, y string) error { return unix.Linkat(a, x, b, y, 0) })
}

// Replace is rename(2): what was at to is gone.
func (r *Root) Replace(from, to string) error { return r.two("rename", from, to, unix.Renameat) }

// Rename moves from to a name that is free. NFS cannot promise that at one moment:
// there the name is looked at before.
func (r *Root) Rename(from, to string) error {
	return r.two("rename", from, to, renameFree)
}

func renameFree(a int, x string, b int, y string) error {
	err := unix.Renameat2(a, x, b, y, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	switch _, err := statAt(b, y); {
	case err == nil:
		return unix.EEXIST
	case !errors.Is(err, unix.ENOENT):
		return err
	}
	return unix.Renameat(a, x, b, y)
}

func (r *Root) two(op, from, to string, f func(a int, x string, b int, y string) error) error {
	src, x, err := r.parent(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // nothing is written by it
	dst, y, err := r.parent(to)
	if err != nil {
		return err
	}
	defer func() { _ = dst.Close() }() // nor by this
	err = again(func() error { return f(int(src.Fd()), x, int(dst.Fd()), y) })
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: path.Join(r.name, from), New: path.Join(r.name, to), Err: err}
}

// ReadFile reads a regular file of at most limit bytes.
func (r *Root) ReadFile(p string, limit int64) ([]byte, error) {
	f, err := r.open(p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	i, err := statOf(f)
	if err != nil {
		return nil, err
	}
	if !i.Regular() || i.Size > limit {
		return nil, r.wrap("read", p, unix.EFBIG)
	}
	b := make([]byte, i.Size)
	n := 0
	for n < len(b) {
		m, err := f.ReadAt(b[n:], int64(n))
		if n += m; err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Create makes a new file with a content that is durable when it returns. Its name
// is not, before [Root.Sync] of its directory.
func (r *Root) Create(p string, content []byte, mode fs.FileMode) error {
	f, err := r.open(p, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, uint32(mode.Perm()))
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// Sync makes the names in a directory durable. Over NFS they are, and the client's fsync
// of a directory does nothing.
func (r *Root) Sync(p string) error {
	if r.nfs {
		return nil
	}
	d, err := r.open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system without: its names are durable anyhow
	}
	return errors.Join(err, d.Close())
}

// Names are what is in a directory.
func (r *Root) Names(p string) ([]string, error) {
	d, err := r.open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // read only
	return d.Readdirnames(-1)
}

// Free is what statfs(2) says of the file system, in bytes.
func (r *Root) Free() (total, available int64, err error) {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(r.fd(), &st) }); err != nil {
		return 0, 0, r.wrap("statfs", "", err)
	}
	block := int64(st.Bsize) //nolint:unconvert // int32 on 386
	return int64(st.Blocks) * block, int64(st.Bavail) * block, nil
}

// procPath reaches what f has open, whatever it is called by now.
func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// Lock locks a file against every other process, also of other clients of an NFS 4
// server; it ends with the process. One that somebody else has is unix.EWOULDBLOCK.
// Where there are no locks it is had without one.
func (r *Root) Lock(p string) (unlock func(), err error) {
	f, err := r.open(p, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		err = nil
	}
	if err == nil {
		// It may have been removed meanwhile, and made anew.
		var now, held Info
		if now, err = r.Lstat(p); err == nil {
			if held, err = statOf(f); err == nil && held.Ino != now.Ino {
				err = unix.EWOULDBLOCK
			}
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written by it
		return nil, r.wrap("lock", p, err)
	}
	return func() { _ = f.Close() }, nil // nothing was written by it
}

// SetOwner gives a directory at p an owner and a mode, each if it is not negative.
func (r *Root) SetOwner(p string, uid, gid int, mode int64) error {
	d, err := r.open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing is written by it
	if uid >= 0 || gid >= 0 {
		if err := unix.Fchown(int(d.Fd()), uid, gid); err != nil {
			return r.wrap("chown", p, err)
		}
	}
	if mode >= 0 {
		return r.wrap("chmod", p, unix.Fchmod(int(d.Fd()), uint32(mode)))
	}
	return nil
}

// File opens the directory at p, for ioctls.
func (r *Root) File(p string) (*os.File, error) {
	return r.open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}
