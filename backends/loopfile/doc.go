// Package loopfile keeps volumes as image files on a local file system and
// serves them through loop devices: block storage with no hardware, no daemon
// and no database. It is a reference backend: complete, crash-safe, and small
// enough to copy.
//
// # A pool
//
// A pool is a directory that [InitPool] prepared. It is never made by the way:
// a directory without pool.json is a disk that is not mounted, and every call
// answers ErrUnavailable until it is.
//
//	pool.json              version, random pool id, name, hints of the file system
//	v/<dir>/img            the volume's bytes
//	v/<dir>/meta.json      what was asked for, and whether it was ever formatted
//	s/<dir>/…              a snapshot: img-<volume's dir> and meta.json
//	g/<dir>/…              a group of snapshots: an image of each volume, and meta.json
//	.tmp/<dir>.<rand>/     what is being made
//	.trash/<dir>.<rand>/   what is being deleted
//	.lock.controller, .lock.node   held with flock by the one process that serves the half
//
// <dir> is 26 characters of base32 of SHA-256 of the volume's name, so that any
// Unicode name is one path component; the volume ID is "<pool name>.<dir>". A
// volume is made in .tmp, made durable, and appears by one rename; it goes by
// one rename too. kill -9 at any point leaves either a whole volume or litter in
// .tmp and .trash, which the next start removes.
//
// # What "not found" needs
//
// Each call first looks whether the directory is still the same one (device,
// inode) and holds the same pool.json. An unmounted or exchanged disk, a torn
// meta.json and a volume of another pool are ErrUnavailable, never not-found:
// a CO that hears not-found forgets the volume.
//
// # Thick and thin
//
// A thick volume is allocated in full before it exists and stays so: its loop
// device does not pass discards on, so that mkfs and fstrim cannot punch holes
// into the file, and holes made by other means are filled at the next stage. A
// thin volume takes space as it is written; Σ(size − allocated) over all volumes
// stays within [Options.Overcommit] times the free space when a volume is made.
//
// # Snapshots, clones, groups
//
// On xfs and btrfs a snapshot shares the blocks of its volume (FICLONE): it is made
// in milliseconds, and survives the volume as the volume survives it. What is
// shared is promised to the volume a second time, for the day on which it is
// overwritten: a snapshot that the pool could not hold then is ErrNoSpace. With an
// Overcommit above 1 this is a promise like the others: a thick volume that has a
// snapshot, or is a copy, can then find the pool full.
// Elsewhere (ext4) the data is copied: by a job that goes on after a restart, when
// nobody uses the volume, which can meanwhile not be opened, grown or deleted;
// within Options.FreezeLimit when it is in use. A copy whose volume was written
// to before it was whole is dropped, never finished.
//
// A file system that is mounted on this node is frozen for the moment of the cut.
// A child process (flock and fsfreeze of util-linux) thaws it when this process
// dies, and the next start when the child died too. A group freezes all of its
// volumes, cuts all, and is one directory: there with all members or not at all.
// A raw device, or a mount that this process does not see, is not frozen; its
// snapshot is what a power cut would leave. A group with two of those in use is
// ErrPrecondition when one of them is written to while it is cut.
//
// A copy of a volume that was formatted gets a UUID of its own when it is made
// (tune2fs, e2fsck, xfs_db, btrfstune), so that both can be mounted side by side.
// Changed blocks are found by extents (FIEMAP), without reading any.
//
// # I/O limits
//
// With [Options.Cgroup] volumes have limits as mutable parameters, which the kernel
// keeps: io.max of that cgroup, for the volume's loop device. They are kept in
// meta.json, written to the cgroup when the volume is opened, changed or found open
// by a new process, and taken away before the loop device is detached, because the
// next one to have it is somebody else. What nobody would keep is refused: a volume
// with limits is not made, changed or opened where the cgroup has no io controller.
//
// # Encryption
//
// A volume with the parameter encrypted=true holds LUKS, made and opened by the
// node's engine with the node-stage secrets encryptionKey and, after a change,
// previousEncryptionKey (see backends.Encryption). Its header takes 16 MiB of it. A
// copy keeps the keys and the UUIDs of its source, and has the same parameter.
//
// # Attaching
//
// A loop device is known by the device and inode of the file behind it, never
// by its name. The file is locked with flock before it is attached; the loop
// device keeps the open file, and with it the lock, for exactly as long as it is
// attached, also when this process dies. So a file cannot be attached twice by
// this package, and nothing has to be scanned to know.
//
// # When not to use it
//
// Where the file system of the pool can go away under a running driver (a
// network file system: refused), or where a volume must be reachable from more
// than one node.
package loopfile
