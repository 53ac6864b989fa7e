// Package lvm keeps volumes as logical volumes of the volume groups of a node, and
// serves them through device-mapper: block storage on local disks. It is a
// reference backend: complete in what it advertises, crash-safe, and without any
// state, daemon or database beside the metadata of lvm itself.
//
// # State
//
// All there is to know of a volume stands in the tags of its LV, which lvm writes
// atomically, with a checksum, to every disk of the volume group:
//
//	csi.d=<driver>  csi.v=1  csi.c=<class>  csi.k=v|s|t|z  csi.n=<name, base64url>
//	csi.s=creating|ready|deleting   the change to ready is the moment it exists
//	csi.t=<unix time>  csi.f=<fingerprint>  csi.src=<ID of what it is a copy of>
//	csi.fmt=<fs>:started|<fs>:done|raw   mkfs is run once in its life
//	csi.off=<bytes>   how far a wipe, or a copy, came
//	csi.su=<UUID>  of the LV that this one is copied from, block by block
//	csi.g=<name, base64url>  csi.gn=<number>   the group of a snapshot, and its members
//	csi.ms   the metadata of the pool is held, to list changed blocks
//	csi.q=<parameter>:<value>   what was modified last     csi.luks   encrypted
//	csi.e=<ID, base64url>   an inline volume, of the pod's   csi.p=<driver>   a thin pool
//	csi.o=<hex>   of the call that made it
//
// An LV without this driver's csi.d is foreign, and never touched, whatever it is
// called. The ID of a volume is "<class>/v-<26 characters of base32 of SHA-256 of
// its name>", of a snapshot "<class>/s-…"; the second half is also what the LV is
// called, and it is found by its tags, so that one that was renamed by hand is not
// lost. A VG may be renamed too: no ID holds its name. But a class has one VG as long as
// it has volumes: one that is given another, or is not configured any more, has its
// volumes refused, by an error that says where they are, and while any class names the
// VG that has them makes none a second time. Another VG is another class.
//
// # What "not found" needs
//
// A report of lvm in which the VG is there with all of its disks, and has the UUID
// that it had before, and one of all VGs of the node in which no other has it. A VG that lacks disks, is another one, or of which lvm cannot
// tell, is ErrUnavailable. What is found in a VG that lacks disks can be opened and
// closed as far as lvm can do so (a mirror without one leg); nothing is made, grown
// or deleted in it. Whether an LV is active says nothing: after a start of the
// machine none is, and each is activated when it is staged.
//
// # Whose data is where
//
// A volume that is not thin is overwritten with zeros when it is deleted
// ([Class.Wipe]), before its extents are given back; a wipe that is cut short goes
// on. So is the space of a thick snapshot, and a copy that was not ended. A thin pool
// has to zero the chunks that it gives away. What stays of a RAID volume is lvm's own, a
// superblock and a bitmap of each leg: no user's data, but the next volume there, as a
// raw device, does not read as zeros all over, unless by ZeroNew.
//
// What lay in extents of the VG that were not this driver's, nobody wiped: prepare
// disks with blkdiscard -z, and do not remove LVs of other data from the VG. pvmove,
// lvconvert --repair and lvconvert -m leave what they move, or take off, where it was:
// take that disk out of the VG (vgreduce) before anything is made on it. Where that
// cannot be promised, [Class.ZeroNew] has all that a volume is given overwritten before
// it is ready, and what it grows by before it is the volume's. That takes as long as
// the disks do. [WipeNone] is the same, and leaves what is deleted on the disks.
//
// # Classes
//
// What a volume is, the administrator says in a [Class]: a VG, one of a few profiles
// (linear, striped, raid1, raid5, raid6, raid10, thin), and never an option of
// lvcreate. As long as a class has volumes its profile and its pool stay what they are:
// for another, add a class. Sizes are whole extents, of stripes as many on each disk. Capacity tells
// how large one volume can be as the free space lies now.
//
// Thin volumes are made in a pool that is there already or, with [Class.PoolSize],
// when the first of them needs it. Nothing is created in it when more is promised
// than [Class.Overcommit] allows, or when its data or its metadata are nearly used up.
// With [Class.PoolMax] the controller half looks at it every ten seconds, and extends
// it. A pool that this driver makes has writes fail when it is full; who makes one
// himself should choose that too (lvchange --errorwhenfull y).
//
// # What can be modified
//
// Read-ahead and the rate of a repair, by lvm, and with [Options.Cgroup] how much the
// processes below a cgroup may read and write, by its io.max. Each change is one
// change of the tags, and holds at once where the volume is open. The layout of a
// volume does not change: a leg that is taken off goes back with its data on it.
//
// # Inline volumes
//
// With [Options.EphemeralMax] a pod may have a volume of its own, of any class: its
// volumeAttributes are those of a StorageClass, and size.
//
// # Snapshots and copies
//
// Thin volumes are cut, restored and cloned within their pool in one command, in
// milliseconds, each independent of the others. Device-mapper freezes a mounted file
// system for the moment of the cut.
//
// A snapshot of any other volume has space of its own in the VG, into which what is
// overwritten in the volume is copied first: as much as the volume, or what the
// snapshot's parameter cow-size says ("20%", "5Gi"). When that is full the snapshot is
// lost: it is not ready any more, the volume's health says so (SnapshotNearlyFull,
// SnapshotInvalid), and nothing is ever restored of it. A volume with such snapshots is
// written to more slowly, cannot be deleted before them, and grows only while it is
// unpublished.
//
// What is restored or cloned otherwise than within a pool is copied block by block, into
// any class: of a volume, of a temporary snapshot, so that it may be in use. The call
// goes on as long as that takes; how far it came stands in the tags every 4 GiB, and a
// call that is repeated after a restart goes on there. Nobody sees it before all of it
// is on the disk.
//
// The members of a group snapshot are volumes of one VG. What is mounted of them is
// frozen while they are cut, at most [Options.FreezeLimit], and a child process thaws it
// when the driver dies; this needs Linux 6.8 for mounted volumes, where device-mapper
// freezes what is frozen already. Two or more raw devices in use must not be written to
// for that long.
//
// ChangedBlocks compares thin snapshots of one pool by its metadata, with thin_dump and
// thin_delta (thin-provisioning-tools), to a chunk of the pool.
//
// # How lvm is run
//
// Directly, never through a shell; the names that it is given are hashes. lvm.conf is
// overridden where a container has no udevd to wait for. Changes of a VG come one
// after the other. A command that changes metadata is not ended when its caller has
// gone, and when it hangs, by SIGTERM first, which lvm heeds when it has written.
// Where commands cannot even be killed, further ones for that VG are refused
// (package command). Reports are shared by those who ask at the same time, and are
// never older than the question. Changes of tags and removals that wait for the same VG
// are run as one command.
//
// A report costs a tenth of a second. Once lvm has said where the disks of a VG are,
// and that all are there, this package reads the metadata from the disks itself: two
// blocks of each tell whether it is still what it was. Anything unusual is lvm's to
// judge: a disk that moved, does not answer or differs from the others, snapshots of
// the old kind, a VG that was exported. So a linear or a thin volume takes three
// commands from its creation to a mounted file system, and two from there to its end.
//
// While pvmove is at a volume, it can be opened and closed, and written to. To grow,
// cut, copy or delete it waits, by ErrUnavailable, until pvmove has ended.
//
// What a call has left that failed, and that nobody asks for again, is swept at the next
// start and every hour: a copy after a week, or if it had not come far, and all else,
// after an hour.
//
// An LV that was closed stays active until it is deleted, the driver starts again, or
// the machine does.
//
// # When not to use it
//
// Where volumes must be reachable from more than one node: shared VGs (lvmlockd) are
// not supported.
package lvm
