// Package mnt is the mount system calls as a CSI driver needs them: mount,
// bind, unmount, and the question whether a path is a mount point. It starts no
// program, keeps no state, and reads /proc only where that is said.
//
// Rules that hold for every function:
//
//   - Paths are absolute. Trailing slashes are dropped, and the last component is
//     never followed when it is a symbolic link. Symbolic links further up are.
//   - No call asks the file system behind a mount anything unless it must. The
//     check for mount points, bind and unmount return at once on a dead FUSE or
//     NFS mount, where stat and statfs fail or hang for ever.
//   - The newest interface of the kernel is used and the older one where that is
//     missing. The floor is Linux 4.18.
//   - Errors say what was tried, on which path, and the kernel's reason. They wrap
//     the errno, and a kind of package backends where the errno has a clear one:
//     [backends.ErrInUse] for EBUSY, [backends.ErrInvalid] for a bad path and for
//     a mount option that is refused. They never contain the value of a mount
//     option, which may be a secret.
//
// A read-only bind is read-only from the first instant, in every mount namespace
// that it propagates to:
//
//	err := mnt.Bind(staging, target, mnt.BindOptions{ReadOnly: true})
//
// Unmounting a path that is no mount point is not an error, and [Unwind] ends
// stacked mounts, of which one unmount would leave the rest:
//
//	n, err := mnt.Unwind(target)
//
// Do not use this package for file systems that need a helper (mount.nfs,
// mount.cifs), nor to find out what file system is on a device; packages
// backends/command and mounter/blockdev are for those. On other systems than
// Linux, functions that need the kernel return [backends.ErrUnsupported].
package mnt
