package nfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// workerRoot is where a worker mounts the share, in its own mount namespace: a
// directory that every system has and a worker has no use for.
const workerRoot = "/sys"

// bring mounts the share, or finds its directory.
func (s *shareTask) bring() (root string, err error) {
	if s.Dir != "" {
		if st, err := os.Stat(s.Dir); err != nil || !st.IsDir() {
			return "", unavailable("the share's directory %s is not there: %w", s.Dir, errors.Join(err, syscall.ENOTDIR))
		}
		return s.Dir, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	o, err := parseOptions(s.Options)
	if err != nil {
		return "", err
	}
	addrs, err := addresses(ctx, s.Host, o)
	if err != nil {
		return "", err
	}
	list := tries(ctx, addrs, o)
	if len(list) == 0 {
		return workerRoot, mountError(s.Source, helperMount(ctx, s.Source, o))
	}
	for _, t := range list {
		if err = mountNFS(mountTask{Source: s.Source, Target: workerRoot, Words: t.words}); !another(err) {
			break
		}
	}
	if err != nil {
		return "", mountError(s.Source, err)
	}
	return workerRoot, nil
}

// helperMount is for NFS 3. Without locks, which a controller does not take, it needs
// no rpc.statd.
func helperMount(ctx context.Context, source string, o *mountOptions) error {
	words := append(o.without("lock", "nolock", "local_lock"), "nolock")
	for _, dir := range []string{"/sbin", "/usr/sbin"} {
		helper := dir + "/mount.nfs"
		if _, err := os.Stat(helper); err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, helper, source, workerRoot, "-o", strings.Join(words, ",")).CombinedOutput()
		if err != nil {
			return unavailable("%s %s: %w: %s", helper, source, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	return fmt.Errorf("%w: NFS 3 needs mount.nfs (nfs-common) in the driver's image", backends.ErrUnavailable)
}

// mountNFS asks the kernel.
func mountNFS(m mountTask) error {
	o, err := mnt.ParseOptions(m.Words)
	if err != nil {
		return err
	}
	o.ReadOnly = o.ReadOnly || m.ReadOnly
	return mnt.Mount(m.Source, "nfs4", m.Target, o)
}

// nodeTasks are those of the node half.
func nodeTasks() map[string]task {
	return map[string]task{
		opMount: func(_ context.Context, t *taskCall) (any, error) {
			var m mountTask
			if err := t.decode(&m); err != nil {
				return nil, err
			}
			return nil, mountNFS(m)
		},
		opUnmount: func(_ context.Context, t *taskCall) (any, error) {
			var p pathTask
			if err := t.decode(&p); err != nil {
				return nil, err
			}
			return nil, takeOff(p)
		},
		opStats: func(_ context.Context, t *taskCall) (any, error) {
			var p pathTask
			if err := t.decode(&p); err != nil {
				return nil, err
			}
			return stats(p)
		},
		opGroup: func(_ context.Context, t *taskCall) (any, error) {
			var p pathTask
			if err := t.decode(&p); err != nil {
				return nil, err
			}
			return nil, onRoot(p, func(d *os.File) error { return mnt.GiveToGroup(d, p.GID) })
		},
		opLook: func(_ context.Context, t *taskCall) (any, error) {
			var p pathTask
			if err := t.decode(&p); err != nil {
				return nil, err
			}
			return nil, onRoot(p, look)
		},
	}
}

// takeOff unmounts everything at a path.
func takeOff(p pathTask) error {
	if !p.Detach {
		_, err := mnt.Unwind(p.Path)
		return err
	}
	for {
		if was, err := mnt.Detach(p.Path); err != nil || !was {
			return err
		}
	}
}

// onRoot opens the root of the mount at a path. Without one it is another directory.
func onRoot(p pathTask, f func(*os.File) error) error {
	switch is, err := mnt.IsMountPoint(p.Path); {
	case err != nil:
		return unavailable("%w", err)
	case !is:
		return unavailable("nothing is mounted at %s", p.Path)
	}
	d, err := os.OpenFile(p.Path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	err = f(d)
	return errors.Join(err, d.Close())
}

// look asks the server about an open directory: its handle may be stale. One that was
// deleted is still known for a while to a server that has it open.
func look(d *os.File) error {
	var st unix.Statx_t
	err := unix.Statx(int(d.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	switch {
	case err != nil:
		return os.NewSyscallError("statx", err)
	case st.Nlink == 0:
		return fmt.Errorf("the directory was deleted on the server: %w", unix.ESTALE)
	}
	return nil
}

// stats are the figures of the file system mounted at a path, and never those of the
// directory below.
func stats(p pathTask) (*backends.VolumeStats, error) {
	f, err := mnt.OpenAside(p.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it holds nothing to lose
	switch is, err := mnt.IsMountPoint(p.Path); {
	case err != nil:
		return nil, unavailable("%w", err)
	case !is && p.Dir == "":
		return nil, unavailable("nothing is mounted at %s", p.Path)
	}
	figures, err := mnt.Figures(f)
	if err != nil {
		return nil, fmt.Errorf("statfs %s: %w", p.Path, err)
	}
	return &figures, nil
}
