// Package blockdev answers the questions that decide whether somebody's data is
// overwritten: is this the right device, and what is on it. It also attaches and
// detaches loop devices. It makes system calls only and runs no program.
//
// [Open] opens a device once; everything else is asked of that descriptor, which
// keeps the kernel from giving the path, the number or the loop device to another
// disk in the meantime. [Device.Verify] compares it with a backends.Identity.
// [Device.Probe] says what it holds:
//
//   - Blank needs proof: 128 KiB at the head, 128 KiB at the tail and every place
//     where a known format keeps a signature were read, past the page cache, and
//     every byte is zero. A read error is an error, never Blank.
//   - Filesystem and Foreign name what was found. A signature whose other fields
//     are not sane is still reported, with Content.Errors.
//   - Unknown is everything else.
//
// A superblock that is whole owns the bytes it says it spans: what looks like a
// signature inside them is file content. A signature outside them (a RAID
// superblock behind a shorter file system) makes the device Foreign.
//
// [AttachLoop] makes a loop device of a file and looks at the result. It does not
// look for another loop device on the same file, since that costs more the more
// there are: two of them are two page caches and corrupt the file, so the caller
// keeps a record, and asks [LoopOf] when it has none. The identity of a loop
// device is the device and inode number of its file, never a path.
//
// Everything but the types returns backends.ErrUnsupported outside Linux.
package blockdev
