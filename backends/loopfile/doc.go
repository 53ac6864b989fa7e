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
//	.tmp/<dir>.<rand>/     a volume that is being made
//	.trash/<dir>.<rand>/   a volume that is being deleted
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
