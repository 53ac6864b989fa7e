package nfs

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extSize, nextents, project, cowExtSize uint32
	_                                              [8]byte
}

const (
	fsGetXattr     = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr     = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherit = 0x200      // FS_XFLAG_PROJINHERIT

	setQuota     = 0x800008 // Q_SETQUOTA
	projectQuota = 2        // PRJQUOTA
	limitsValid  = 1        // QIF_BLIMITS
	quotaBlock   = 1024
)

// ifDqblk is struct if_dqblk of linux/quota.h.
type ifDqblk struct {
	hard, soft, space, inodesHard, inodesSoft, inodes, blockTime, inodeTime uint64
	valid                                                                   uint32
	_                                                                       uint32
}

// setProject makes a new, empty directory a project of its own with a limit.
func (s *site) setProject(m *marker, at string) error {
	if m.Project == 0 {
		id, err := s.takeProject(m.Key)
		if err != nil {
			return err
		}
		m.Project = id
		if err := s.save(m); err != nil {
			return err
		}
		s.step("nfs.project.taken")
	}
	d, err := s.root.File(at)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing is written by it
	var x fsxattr
	if err := ioctl(d, fsGetXattr, &x); err != nil {
		return noProjects(err)
	}
	x.project, x.xflags = m.Project, x.xflags|projectInherit
	if err := ioctl(d, fsSetXattr, &x); err != nil {
		return noProjects(err)
	}
	return s.limitProject(m)
}

func ioctl(f *os.File, op uintptr, x *fsxattr) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), op, uintptr(unsafe.Pointer(x)))
	if e != 0 {
		return e
	}
	return nil
}

func noProjects(err error) error {
	return fmt.Errorf("%w: the share's file system has no project quota (mount it with prjquota): %w", backends.ErrFailed, err)
}

// limitProject sets the limit of a volume's project to its size.
func (s *site) limitProject(m *marker) error {
	if m.Project == 0 {
		return fmt.Errorf("%w: the volume was made without project quota", backends.ErrPrecondition)
	}
	return s.setLimit(m.Project, m.Size)
}

func (s *site) setLimit(project uint32, size int64) error {
	d, err := s.root.File(".")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing is written by it
	blocks := uint64((size + quotaBlock - 1) / quotaBlock)
	q := ifDqblk{hard: blocks, soft: blocks, valid: limitsValid}
	_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, d.Fd(), setQuota<<8|projectQuota, uintptr(project), uintptr(unsafe.Pointer(&q)), 0, 0)
	if e != 0 {
		return noProjects(e)
	}
	return nil
}

// takeProject finds an ID that no other volume of this installation has.
func (s *site) takeProject(key string) (uint32, error) {
	const first, tries = 1 << 20, 1000
	at := crc32.ChecksumIEEE([]byte(key))>>1 | first
	for i := range uint32(tries) {
		id := at + i
		err := s.writeNew(projectPath(id), claim{Version: 1, Path: strconv.FormatUint(uint64(id), 10), Key: key})
		if err == nil {
			return id, nil
		}
		var c claim
		if !exists(err) {
			return 0, err
		}
		if err := s.read(projectPath(id), &c); err == nil && c.Key == key {
			return id, nil // of a try that did not end
		}
	}
	return 0, fmt.Errorf("%w: no project ID is free", backends.ErrLimit)
}

func projectPath(id uint32) string {
	return dirProjects + "/" + strconv.FormatUint(uint64(id), 10) + ".json"
}

// dropProject gives the ID of a volume's project back, without a limit.
func (s *site) dropProject(m *marker) error {
	if m.Project == 0 {
		return nil
	}
	if err := s.setLimit(m.Project, 0); err != nil && !errors.Is(err, backends.ErrFailed) {
		return err
	}
	return s.erase(projectPath(m.Project))
}
