// Package mounter is the node half of a driver: it takes a volume from what a
// backend says (a device, a mount or a directory, see backends.Node) to a path in
// a pod, and back.
//
//	e, err := mounter.New(node, &mounter.Options{StateDir: "/var/lib/my-driver"})
//	err = e.Start(ctx)
//	err = e.Stage(ctx, mounter.StageRequest{...})   // open, identify, format, mount
//	err = e.Publish(ctx, mounter.PublishRequest{...}) // bind
//	err = e.Unpublish(ctx, ...)
//	err = e.Unstage(ctx, ...)                       // unmount, close
//
// Package csidriver does these calls for a driver; a driver with a csi.NodeServer
// of its own can do them itself. Every call can be repeated, after any error and
// after a crash in the middle of it, and then finishes the work.
//
// # What it promises
//
// Data is never destroyed in doubt. A device is identified on the descriptor by
// which it is used. It is formatted only if it was read without an error and is
// blank, or if a record says that an mkfs was cut short on it, or if the backend
// vouches that it was never used. A file system that is there is never formatted.
// Everything else is refused, and the error says what was found where, and how to
// release the device by hand. Nothing is deleted but one empty directory or file:
// the target of a publish.
//
// OK means that the kernel was asked, after the work and in each repeated call.
// Mounts that are not the volume's are left alone by stage, publish and unstage;
// what is stacked on a target that is on record is unwound by unpublish. Where the
// record of a path was lost, a mount there is taken for the volume's if a stage or
// a publish can have made it, and if no other volume has the path; a tmpfs, proc
// and their like are left alone.
//
// A failure that a CO takes for final leaves nothing open.
//
// # Records
//
// Below Options.StateDir there is one file for each volume and staging path, and
// one for each volume and target path; an ephemeral volume, which is made for its
// target and staged there, has one that says what to delete. CSI says little when
// it unstages, and an mkfs that was killed leaves a device that cannot be told
// from one with data. The kernel stays the truth: when a record is lost, a mount
// that is the volume's is taken over, and CloseVolume gets no State. A record that
// is torn, or of a newer form, makes the engine refuse its volume and no other.
//
// # Encrypted volumes
//
// A device for which the backend gives an Encryption holds LUKS2, made by cryptsetup
// under the rules of an mkfs: only what reads as blank, or is known to be worth
// nothing, is formatted; a plain file system is refused, and so is LUKS on a device
// that is not to be encrypted. What is done inside is decided inside. A new header
// bears a mark until there is a file system, or until a raw block volume is given
// away; behind it noise may be formatted, and behind no other header. So a format
// that was cut short is taken up again on any node, whoever has forgotten it.
//
// The mapping has a name made of the volume and the LUKS UUID, and is believed only
// with the device-mapper's UUID that belongs to that name and on the volume's device
// alone. It is closed before CloseVolume, also when the records were lost. Keys go
// through pipes and memory to cryptsetup, and nowhere else. The volume key stays in
// the device-mapper's table, not in a keyring, so that the volume can be grown when
// nobody has the key: root of the node can read it there (dmsetup table --showkeys),
// as it can read the data.
//
// # FUSE
//
// A volume for which the backend gives a FUSE is served by a program, and the program
// is run by Options.Servers, outside of the driver's container: a child would die
// with that. The engine opens /dev/fuse, makes the mount, hands the descriptor over
// and keeps no copy; the volume is staged when the server has answered. There is one
// server for a volume, known by the volume's ID, which is on record before it is
// started; a driver that was started anew finds it by that, and it ends before
// CloseVolume.
//
// When a server dies its mount is dead for good. The volume is then healed: a new
// server, a new mount in the place of the dead one, and new binds at all its targets,
// as they were made. That happens when the host tells of the death, at the next start
// of the engine, and with the next stage, publish or question for figures. How to run
// the server is known from the request, from the engine's memory, the host's, or a
// backends.FUSEReopener; nothing of it is written down, for it may hold secrets. What
// a pod sees of that: containers with mountPropagation HostToContainer get the new
// mount; others keep their own copy of the dead one (ENOTCONN) until they are started
// anew, and so do files that were open.
//
// A server that does not answer is not replaced, it may have data: stage and publish
// are backends.ErrUnavailable after Options.ServerAnswer. Unpublish and unstage take
// it away all the same, and end its connection if that is what keeps it busy.
//
// # When not to use it
//
// For mount points, bind mounts and options alone there is mounter/mnt; for
// probing a device and for loop devices mounter/blockdev.
package mounter
