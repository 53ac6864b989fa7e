package tree

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dress gives a copied file or directory the owner, mode, attributes and, last, the
// times of its source.
func (c *copier) dress(dst, src *os.File, info Info) error {
	fd := int(dst.Fd())
	if err := again(func() error { return unix.Fchown(fd, int(info.UID), int(info.GID)) }); err != nil {
		return &os.PathError{Op: "chown", Path: dst.Name(), Err: err}
	}
	if err := copyAttributes(dst, src, info.Dir()); err != nil {
		return err
	}
	if err := again(func() error { return unix.Fchmod(fd, info.Mode&0o7777) }); err != nil {
		return &os.PathError{Op: "chmod", Path: dst.Name(), Err: err}
	}
	times := []unix.Timespec{info.Atime, info.Mtime}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(dst), times, 0); err != nil {
		return &os.PathError{Op: "utimensat", Path: dst.Name(), Err: err}
	}
	return nil
}

// dressAt is dress for what cannot be opened. The copy is where nobody else is.
func (c *copier) dressAt(t task, dir *os.File, name string) error {
	fd, full := int(dir.Fd()), dir.Name()+"/"+name
	if err := unix.Fchownat(fd, name, int(t.info.UID), int(t.info.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: full, Err: err}
	}
	if t.info.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := c.attributesAt(t, dir, name); err != nil {
			return err
		}
		if err := unix.Fchmodat(fd, name, t.info.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: full, Err: err}
		}
	}
	times := []unix.Timespec{t.info.Atime, t.info.Mtime}
	if err := unix.UtimesNanoAt(fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: full, Err: err}
	}
	return nil
}

// attributesAt copies the attributes of a fifo, socket or device, without opening it.
func (c *copier) attributesAt(t task, dir *os.File, name string) error {
	src, err := openat2(int(t.p.src.Fd()), t.name, t.p.src.Name()+"/"+t.name, unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
	if isGone(err) {
		return c.vanished(t.p, t.name, unix.ENOENT)
	}
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // O_PATH
	dst, err := openat2(int(dir.Fd()), name, dir.Name()+"/"+name, unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return err
	}
	defer func() { _ = dst.Close() }() // O_PATH
	return copyAttributes(dst, src, false)
}

// notCopied are attributes that the kernel keeps by itself: labels come from the
// policy, and those of overlayfs are its own.
func notCopied(name string) bool {
	return name == "security.selinux" || name == "security.ima" || name == "security.evm"
}

// The access lists of POSIX: who may do what with a file, and what the list of a new
// file in a directory is (acl(5)).
const accessACL, defaultACL = "system.posix_acl_access", "system.posix_acl_default"

// removable are attributes that no file has by the kernel's own doing, but for access
// lists that it inherits.
func removable(name string) bool {
	return name == accessACL || name == defaultACL || strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// copyAttributes makes extended attributes those of src, access lists among them. dst is
// a new file, or a directory that an earlier copy may have made.
func copyAttributes(dst, src *os.File, dir bool) error {
	names, err := attributes(src)
	if err != nil {
		return err
	}
	if err := dropAttributes(dst, names, dir); err != nil {
		return err
	}
	for _, name := range names {
		if notCopied(name) {
			continue
		}
		v, err := attribute(src, name)
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err == nil {
			err = unix.Setxattr(procPath(dst), name, v, 0)
		}
		if err != nil {
			return &os.PathError{Op: "copy attribute " + name, Path: src.Name(), Err: err}
		}
	}
	return nil
}

// dropAttributes removes what is not to be kept. A list that dst inherited from the
// directory above it would open the copy to those whom the source is shut to.
func dropAttributes(dst *os.File, keep []string, dir bool) error {
	have := []string{accessACL} // of a new file; no call of an NFS 4 server's, which has none
	if dir {
		var err error
		if have, err = attributes(dst); err != nil {
			return err
		}
	}
	for _, name := range have {
		if !removable(name) || slices.Contains(keep, name) {
			continue
		}
		err := unix.Removexattr(procPath(dst), name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
			return &os.PathError{Op: "remove attribute " + name, Path: dst.Name(), Err: err}
		}
	}
	return nil
}

// attributes are the names of a file's.
func attributes(f *os.File) ([]string, error) {
	for size := 1024; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Listxattr(procPath(f), buf)
		switch {
		case errors.Is(err, unix.ERANGE) && size < 1<<20:
			continue
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil, nil
		case err != nil:
			return nil, &os.PathError{Op: "listxattr", Path: f.Name(), Err: err}
		}
		var names []string
		for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
			if len(name) > 0 {
				names = append(names, string(name))
			}
		}
		return names, nil
	}
}

func attribute(f *os.File, name string) ([]byte, error) {
	for size := 1024; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Getxattr(procPath(f), name, buf)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
