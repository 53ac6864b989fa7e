package mnt

import (
	"bytes"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/internal/mountapi"
)

// listmount and statmount (Linux 6.8) answer about one mount, or list the ids of
// all, without printing the whole table. All that they give must be what
// mountinfo shows, so that the fallback changes nothing but the time.

// What statmount is asked for (STATMOUNT_*).
const (
	askSuper     = 0x1
	askMount     = 0x2
	askRoot      = 0x8
	askPoint     = 0x10
	askType      = 0x20
	askData      = 0x80  // Linux 6.11
	askSubtype   = 0x100 // Linux 6.13
	askSource    = 0x200 // Linux 6.13, with the subtype
	askAll       = askSuper | askMount | askRoot | askPoint | askType | askData | askSubtype | askSource
	mustHave     = askSuper | askMount | askRoot | askPoint | askType | askSource
	listRoot     = ^uint64(0) // LSMT_ROOT
	statmountMax = 64 << 10   // of one mount: its strings have a page each, at most
)

// mountRequest is struct mnt_id_req of Linux 6.8.
type mountRequest struct {
	size, _   uint32
	id, param uint64
}

// mountStat is struct statmount. Its strings follow it, and the fields of that kind
// are offsets behind it.
type mountStat struct {
	size, data                               uint32
	mask                                     uint64
	devMajor, devMinor                       uint32
	_                                        uint64 // sb_magic
	superFlags, fsType                       uint32
	id, parentID                             uint64
	oldID, oldParentID                       uint32
	attr, propagation, peers, master, source uint64
	root, point                              uint32
	_                                        uint64 // mnt_ns_id
	subtype, device                          uint32
	_                                        [384]byte
}

// mountReply is room for an answer.
type mountReply struct {
	mountStat
	text [3 << 10]byte
}

// errNoStatmount says that the older interface must be asked.
var errNoStatmount = errors.New("no statmount")

// dev is the number of the file system, as mountinfo shows it.
func (m *mountStat) dev() uint64 { return mkdev(m.devMajor, m.devMinor) }

// statMount asks for one mount. A mount that is gone is ENOENT.
func statMount(id, mask uint64, buf unsafe.Pointer, size uintptr) error {
	req := mountRequest{id: id, param: mask}
	req.size = uint32(unsafe.Sizeof(req))
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&req)), uintptr(buf), size, 0, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// infoOf asks for one mount whole. One that is gone is ENOENT, one that cannot be
// reached from here that or EPERM.
func infoOf(id uint64) (i Info, parent uint64, err error) {
	var reply mountReply
	m, text := &reply.mountStat, reply.text[:]
	err = statMount(id, askAll, unsafe.Pointer(&reply), unsafe.Sizeof(reply))
	if errors.Is(err, unix.EOVERFLOW) {
		big := make([]uint64, statmountMax/8) // aligned as the struct is
		b := unsafe.Slice((*byte)(unsafe.Pointer(&big[0])), statmountMax)
		err = statMount(id, askAll, unsafe.Pointer(&big[0]), statmountMax)
		m, text = (*mountStat)(unsafe.Pointer(&big[0])), b[unsafe.Sizeof(mountStat{}):]
	}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM):
		return Info{}, 0, err
	case err != nil || m.mask&mustHave != mustHave:
		return Info{}, 0, errNoStatmount
	}
	return m.info(text), m.parentID, nil
}

func (m *mountStat) info(text []byte) Info {
	str := func(bit uint64, offset uint32) string {
		if m.mask&bit == 0 || int(offset) >= len(text) {
			return ""
		}
		s := text[offset:]
		return string(s[:max(bytes.IndexByte(s, 0), 0)])
	}
	i := Info{
		ID: int(m.oldID), Parent: int(m.oldParentID), Dev: m.dev(),
		Root: str(askRoot, m.root), Point: str(askPoint, m.point), Options: attrNames(m.attr),
		Shared: m.propagation&unix.MS_SHARED != 0,
		FSType: str(askType, m.fsType), Source: str(askSource, m.device), Super: superNames(m.superFlags),
	}
	if s := str(askSubtype, m.subtype); s != "" {
		i.FSType += "." + s
	}
	if s := str(askData, m.data); s != "" {
		i.Super = append(i.Super, splitLoose(s)...)
	}
	return i
}

// attrNames are the attributes of a mount in the words and the order of mountinfo.
func attrNames(attr uint64) []string {
	words := make([]string, 1, 4)
	words[0] = "rw"
	if attr&AttrReadOnly != 0 {
		words[0] = "ro"
	}
	for _, f := range msFlags {
		if f.attr == AttrNoSymFollow && attr&attrAtime == 0 {
			words = append(words, "relatime") // between the two
		}
		if f.attr != AttrReadOnly && attr&f.attr != 0 {
			words = append(words, f.word)
		}
	}
	if attr&unix.MOUNT_ATTR_IDMAP != 0 {
		words = append(words, "idmapped")
	}
	return words
}

// superNames are the flags of a file system in the words of mountinfo.
func superNames(flags uint32) []string {
	words := make([]string, 1, 4)
	words[0] = "rw"
	if flags&unix.MS_RDONLY != 0 {
		words[0] = "ro"
	}
	for _, f := range []struct {
		flag uint32
		word string
	}{
		{uint32(SuperSync), "sync"}, {uint32(SuperDirSync), "dirsync"},
		{uint32(SuperMand), "mand"}, {uint32(SuperLazyTime), "lazytime"},
	} {
		if flags&f.flag != 0 {
			words = append(words, f.word)
		}
	}
	return words
}

// uniqueID is the id by which statmount knows the mount that p lies on.
func uniqueID(dir int, p string) (uint64, error) {
	if !mountapi.Has(mountapi.Statmount | mountapi.UniqueID | mountapi.MountRoot) {
		return 0, errNoStatmount
	}
	flags := lookFlags
	if p == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if err := unix.Statx(dir, p, flags, unix.STATX_MNT_ID_UNIQUE, &st); err != nil || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return 0, errNoStatmount // the older way finds out why
	}
	return st.Mnt_id, nil
}

// stackAt is the stack at p, topmost first.
func stackAt(p string) ([]Info, error) {
	id, err := uniqueID(unix.AT_FDCWD, p)
	if err != nil {
		return nil, err
	}
	var stack []Info
	for len(stack) < maxListed {
		i, parent, err := infoOf(id)
		above := len(stack) > 0 // which pins its parent: only what lies outside of our root is not shown
		if above && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM)) || err == nil && above && i.Point != stack[0].Point {
			break
		}
		if err != nil {
			return nil, errNoStatmount // gone meanwhile, too
		}
		stack = append(stack, i)
		if parent == id { // the root of a namespace
			break
		}
		id = parent
	}
	return stack, nil
}

// maxListed bounds what a broken kernel can make us do.
const maxListed = 1 << 20

// eachMount calls f with the id of every mount that this process can see. Ids
// grow: what is mounted meanwhile comes last, and nothing is left out.
func eachMount(f func(id uint64) error) error {
	if !mountapi.Has(mountapi.Statmount) {
		return errNoStatmount
	}
	ids := make([]uint64, 1024)
	req := mountRequest{id: listRoot}
	req.size = uint32(unsafe.Sizeof(req))
	for {
		n, _, errno := unix.Syscall6(unix.SYS_LISTMOUNT, uintptr(unsafe.Pointer(&req)), uintptr(unsafe.Pointer(&ids[0])), uintptr(len(ids)), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0 || int(n) > len(ids):
			return errNoStatmount
		}
		for _, id := range ids[:n] {
			if err := f(id); err != nil {
				return err
			}
		}
		if int(n) < len(ids) {
			return nil
		}
		req.param = ids[n-1]
	}
}

// mountsOfDevice finds the mounts of a file system without reading the table.
func mountsOfDevice(dev uint64) (list []Info, err error) {
	var m mountStat
	err = eachMount(func(id uint64) error {
		err := statMount(id, askSuper, unsafe.Pointer(&m), unsafe.Sizeof(m))
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil || m.mask&askSuper == 0 {
			return errNoStatmount
		}
		if m.dev() != dev {
			return nil
		}
		i, _, err := infoOf(id)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err == nil && i.Point != "" { // mountinfo leaves out what cannot be reached from here
			list = append(list, i)
		}
		return err
	})
	return list, err
}

// sharedAt reports whether the mount that fd lies on is shared.
func sharedAt(fd int) (bool, error) {
	id, err := uniqueID(fd, "")
	if err != nil {
		return false, err
	}
	var m mountStat
	if err := statMount(id, askMount, unsafe.Pointer(&m), unsafe.Sizeof(m)); err != nil || m.mask&askMount == 0 {
		return false, errNoStatmount
	}
	return m.propagation&unix.MS_SHARED != 0, nil
}
