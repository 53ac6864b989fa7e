// Package nfs serves directories of NFS shares as volumes that many nodes mount at
// once. It keeps working when a server does not, and deletes nothing that it did
// not make. It is a reference backend: it needs no database and no Kubernetes, and
// takes over the volumes of csi-driver-nfs.
//
// # A share
//
// A share is an export of a server. Those in [Options.Shares] have names, which
// stand in the handles of their volumes: the server behind a name may move. With
// [Options.AnyShare] a StorageClass may name any other by server and path. A volume
// is a directory of its share, by default called as the volume is:
//
//	<subDir>/                        the volume: nothing in it but what its users put there
//	archived-<…>/                    a deleted volume with onDelete=archive
//	.csi-<installation>/share.json   version, random ID
//	.csi-<installation>/v/<key>.json    the volume's marker: name, subDir, inode, state, …
//	.csi-<installation>/c/<hash>.json   who claims a path; p/ has the parents that we made
//	.csi-<installation>/s/<key>.json    a snapshot; its content is d/<key>/
//	.csi-<installation>/new/<key>/      what is being made
//	.csi-<installation>/trash/<key>.<rand>/  what is being deleted
//
// <key> is 26 characters of base32 of SHA-256 of the name. Several installations
// share an export by different names ([Options.Installation]).
//
// # What is ours
//
// A marker names the directory by path and inode. A directory that is there without
// a marker is somebody's: it is not adopted unless the class says adopt=true, and
// never removed. A volume appears by one rename, when it is whole, and goes by one
// rename; what the rename left is removed later, without following a symbolic link
// or entering another file system. Parents are removed by rmdir, and only those that
// this driver made. (A copy of the whole share to another file system has other
// inodes: markers tell that by the inode of their own directory, and then go by the
// path alone.)
//
// # What "not found" needs
//
// Each operation looks whether the share is there, with its share.json, and whether
// that has the ID that it had before (Options.StateDir keeps it, or [Share] has it).
// Another share in its place, a server that does not answer, a share that is not
// mounted, a torn marker and one of a newer version are ErrUnavailable, never not-found.
//
// # What may hang
//
// A call to a server that is gone may never return. Whatever reads or writes a share
// runs in a process of its own, which is killed when it makes no progress; a main
// that uses this package begins with
//
//	if nfs.IsWorker() {
//		os.Exit(nfs.RunWorker())
//	}
//
// # When not to use it
//
// Where a file system that one node mounts is enough, a block backend is faster and
// its snapshots are of one moment. A copy of a directory in use is not: see the
// parameter "consistency" of snapshots.
package nfs
