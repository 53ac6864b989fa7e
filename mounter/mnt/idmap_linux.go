package mnt

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/internal/mountapi"
)

// mountMapped mounts with the owners of files mapped, or not at all: mount(2) cannot
// do it.
func mountMapped(source, fstype string, t *target, o Options) error {
	if !mountapi.Has(mountapi.Context|mountapi.Tree) || needsOldMount(fstype, o) {
		return cannotMap(unix.ENOSYS)
	}
	userns, err := userNamespace(o.Owners.Map)
	if err != nil {
		return err
	}
	defer userns.Close() //nolint:errcheck // a name, and nothing to lose
	o.userns = userns
	return mountContext(source, fstype, t, o)
}

// bindMapped is bindTree with the owners of files mapped.
func bindMapped(source int, t *target, o BindOptions) error {
	if !mountapi.Has(mountapi.Tree) {
		return cannotMap(unix.ENOSYS)
	}
	userns, err := userNamespace(o.Owners.Map)
	if err != nil {
		return err
	}
	defer userns.Close() //nolint:errcheck // a name, and nothing to lose
	return bindAs(source, t, o, userns)
}

// mapOwners maps a mount that nobody sees yet.
func mapOwners(tree int, userns *os.File) error {
	err := setAttr(tree, "", &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())})
	if err != nil {
		return cannotMap(err)
	}
	return nil
}

// cannotMap: EINVAL is the answer for a file system that does not know of it, and for
// a kernel that does not; EPERM the one for a mount that is mapped already, too.
func cannotMap(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: the owners of its files cannot be mapped (idmapped mounts need Linux 5.12 and a file system that has them, "+
			"which is not mapped already): %w", backends.ErrPrecondition, err)
	}
	return fmt.Errorf("map owners: %w", err)
}

// userNamespace makes a namespace with these users and groups, in which nothing runs:
// a child is made in it that is stopped before its first instruction, and ended.
func userNamespace(maps []backends.IDMap) (*os.File, error) {
	var ids []syscall.SysProcIDMap
	for _, m := range maps {
		if m.Count == 0 || m.Volume+(m.Count-1) < m.Volume || m.Node+(m.Count-1) < m.Node {
			return nil, fmt.Errorf("%w: map of %d owners from %d to %d", backends.ErrInvalid, m.Count, m.Volume, m.Node)
		}
		ids = append(ids, syscall.SysProcIDMap{ContainerID: int(m.Volume), HostID: int(m.Node), Size: int(m.Count)})
	}
	runtime.LockOSThread() // the child is traced by, and dies with, this thread
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{"userns"}, &os.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true, Pdeathsig: syscall.SIGKILL,
	}})
	if err != nil {
		return nil, fmt.Errorf("%w: make a user namespace: %w", backends.ErrPrecondition, err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(p.Pid) + "/ns/user")
	err = errors.Join(err, p.Kill())
	_, wait := p.Wait()
	err = errors.Join(err, wait)
	if err != nil {
		return nil, fmt.Errorf("%w: user namespace: %w", backends.ErrUnavailable, err)
	}
	return f, nil
}
