// Package kmount is where csikit and k8s.io/mount-utils meet, in both directions.
//
// Old driver code, written against mount.Interface and SafeFormatAndMount, gets
// csikit's mounts by changing two constructors:
//
//	m, err := kmount.New(nil)             // was mount.New("")
//	f, err := kmount.NewFormatter(m, nil) // was mount.NewSafeFormatAndMount(m, exec.New())
//
// Nothing else changes in it, and binds, mounts and unmounts are system calls
// instead of processes, a read-only bind is read-only from its first instant, dead
// mounts are seen as mounts, names with spaces in List are what they are called,
// and FormatAndMount formats nothing that it has not read and found blank.
//
// The other way round, [OverInterface] makes a mounter.Kernel of a mount.Interface,
// so that csikit's engine runs over a mounter that somebody else wrote: a
// FakeMounter in tests, or one that works in another mount namespace.
//
// # What differs from mount-utils
//
// A Mounter does what the same calls of mount.Mounter do, with these exceptions.
// The tests hold both to one table.
//
//   - Unmount of a path that does not exist is no error, as of one that is no
//     mount point. UnmountWithForce does not wait longer than it was told, and
//     forces nothing else than the mount at the path.
//   - IsMountPoint is true for a mount whose server is dead, where mount.Mounter
//     returns ENOTCONN; GetMountRefs finds the other mounts of such a file system.
//   - List decodes the names that /proc/mounts writes with \040 and the like.
//   - ["bind", "remount", "ro"] changes the mount that is there. mount.Mounter drops
//     the remount, and stacks another bind on it.
//   - A new bind belongs to no peer group, so that what is mounted below it later
//     stays there. The bind itself reaches the namespaces that it did.
//   - Options that csikit does not follow are refused with backends.ErrInvalid:
//     rbind, move, propagation words, loop, user and other words of fstab that call
//     for more than a mount, and flags of mount(8) that are not known here. Options
//     of a file system in a bind (["bind", "discard"]) have no effect, as with
//     mount(8), and are logged.
//   - A source that is no device path where one is needed (UUID=, LABEL=, an image
//     that would need a loop device) is refused.
//   - Secrets do not get onto a command line. Sensitive options go to the kernel, or
//     by file to the helpers that take one (mount.cifs, mount.smb3, mount.ceph);
//     for another helper they are refused.
//   - There is no systemd-run: a FUSE helper's daemon lives in the container of the
//     driver, and dies with it.
//
// As with mount.Mounter, a Mount onto a mount point stacks a second mount, and each
// Unmount takes one off. With Options.Same a mount that is there already is left as
// it is.
//
// # When not to use it
//
// In new code. package mounter does stage, publish, unpublish and unstage as a
// whole, with a record of what was done, and this package cannot: a mount.Interface
// knows paths, and neither the volume nor the disk that is meant. For mounts alone
// there is mounter/mnt, whose calls take no lists of words.
package kmount
