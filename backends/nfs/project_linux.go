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

	getQuota     = 0x800007 // Q_GETQUOTA
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

// setProject makes new, empty directories a project of their own with a limit.
func (s *site) setProject(m *marker, dirs ...string) error {
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
	for _, dir := range dirs {
		if err := s.inheritProject(m.Project, dir); err != nil {
			return err
		}
	}
	return s.limitProject(m)
}

// inheritProject has what is made in a directory belong to a project.
func (s *site) inheritProject(id uint32, dir string) error {
	d, err := s.root.File(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing is written by it
	var x fsxattr
	if err := ioctl(d, fsGetXattr, &x); err != nil {
		return noProjects(err)
	}
	x.project, x.xflags = id, x.xflags|projectInherit
	if err := ioctl(d, fsSetXattr, &x); err != nil {
		return noProjects(err)
	}
	return nil
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

// usedProject tells whether files belong to a project: of what was archived or retained,
// or lies in the trash, or of somebody else. They would count for a new volume.
func (s *site) usedProject(id uint32) (bool, error) {
	d, err := s.root.File(".")
	if err != nil {
		return false, err
	}
	defer func() { _ = d.Close() }() // read only
	var q ifDqblk
	_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, d.Fd(), getQuota<<8|projectQuota, uintptr(id), uintptr(unsafe.Pointer(&q)), 0, 0)
	switch {
	case e == unix.ENOENT:
		return false, nil // xfs has never heard of it
	case e != 0:
		return false, noProjects(e)
	}
	return q.space > 0 || q.inodes > 0, nil
}

// takeProject finds an ID that no other volume of this installation has, and no file.
func (s *site) takeProject(key string) (uint32, error) {
	const first, tries = 1 << 20, 1000
	at := crc32.ChecksumIEEE([]byte(key))>>1 | first
	for i := range uint32(tries) {
		id := at + i
		used, err := s.usedProject(id)
		if err == nil && !used {
			err = s.writeNew(projectPath(id), claim{Version: 1, Path: strconv.FormatUint(uint64(id), 10), Key: key})
			if err == nil {
				return id, nil
			}
		}
		if err != nil && !exists(err) {
			return 0, err
		}
		var c claim
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
