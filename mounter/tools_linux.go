package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/mounter/blockdev"
)

// heldPath names the open descriptor to a child: the instance that was
// identified, whatever its path means by now.
func heldPath(d *blockdev.Device) string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(d.File().Fd()))
}

// mkfsArgs make a file system over anything, quickly, with all of the space for
// its users.
var mkfsArgs = map[string][]string{
	"ext2":  {"-F", "-q", "-m", "0"},
	"ext3":  {"-F", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"},
	"ext4":  {"-F", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"},
	"xfs":   {"-f", "-q"},
	"btrfs": {"-f", "-q"},
}

func (k linux) Mkfs(ctx context.Context, dev Device, fsType string, options []string) error {
	d, err := blockDevice(dev)
	if err != nil {
		return err
	}
	args, ok := mkfsArgs[fsType]
	if !ok {
		return fmt.Errorf("%w: file system type %q", backends.ErrInvalid, fsType)
	}
	if options, err = k.mkfsOptions(ctx, fsType, options); err != nil {
		return err
	}
	lock, err := lockDevice(ctx, d)
	if err != nil {
		return err
	}
	args = append(slices.Concat(args, options), heldPath(d))
	_, err = k.run.Run(ctx, command.Cmd{Path: "mkfs." + fsType, Args: args, Scope: d.Path(), Hold: []*os.File{lock}})
	return errors.Join(err, lock.Close())
}

// lockDevice marks the device for as long as a tool works on it, also one that
// outlives this process. udev has a lock of its own on it for a moment after each
// change.
func lockDevice(ctx context.Context, d *blockdev.Device) (lock *os.File, err error) {
	const tries, wait = 50, 20 * time.Millisecond
	for range tries {
		if lock, err = d.Lock(); !errors.Is(err, backends.ErrInUse) {
			return lock, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, contextError(ctx)
		}
	}
	return nil, err
}

// The exit code of e2fsck is a sum of these.
const (
	fsckCorrected   = 1
	fsckReboot      = 2 // for the root file system
	fsckUncorrected = 4
)

func (k linux) Check(ctx context.Context, dev Device, fsType string, force bool) error {
	if !isExt(fsType) {
		return nil
	}
	d, err := blockDevice(dev)
	if err != nil {
		return err
	}
	args := []string{"-p"}
	if force {
		args = append(args, "-f")
	}
	return k.fsck(ctx, d, args...)
}

// Mend implements Mender.
func (k linux) Mend(ctx context.Context, dev Device, fsType string) error {
	d, err := blockDevice(dev)
	if err != nil {
		return err
	}
	if !isExt(fsType) {
		return refuse("csikit does not mend %s", fsType)
	}
	return k.fsck(ctx, d, "-f", "-y")
}

// fsck runs e2fsck. It is given to understand by its exit code alone.
func (k linux) fsck(ctx context.Context, d *blockdev.Device, args ...string) error {
	_, err := k.run.Run(ctx, command.Cmd{Path: "e2fsck", Args: append(args, heldPath(d)), Scope: d.Path()})
	var exit *command.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit) || exit.Code < 0:
		return unavailable("%w", err)
	case exit.Code&^(fsckCorrected|fsckReboot) == 0:
		return nil
	case exit.Code&fsckUncorrected != 0:
		return refuse("e2fsck found what it may not repair unasked; repair %s by hand (e2fsck): %w", d.Path(), err)
	default:
		return unavailable("%w", err)
	}
}

// GrowsOnline: the kernel lets only CAP_SYS_RESOURCE grow a mounted ext3 or ext4,
// and its driver for ext2 cannot.
func (linux) GrowsOnline(fsType string) bool {
	switch {
	case !isExt(fsType):
		return true
	case fsType == "ext2":
		return false
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func (k linux) Grow(ctx context.Context, dev Device, fsType, path string) error {
	d, err := blockDevice(dev)
	if err != nil {
		return err
	}
	c := command.Cmd{Scope: d.Path()}
	switch {
	case isExt(fsType):
		c.Path, c.Args = "resize2fs", []string{heldPath(d)}
	case path == "":
		return refuse("%s is grown only while it is mounted", fsType)
	case fsType == "xfs":
		c.Path, c.Args = "xfs_growfs", []string{"-d", path}
	case fsType == "btrfs":
		dev, err := btrfsDevOf(path, d.Num())
		if err != nil {
			return err
		}
		c.Path, c.Args = "btrfs", []string{"filesystem", "resize", strconv.FormatUint(dev.ID, 10) + ":max", path}
	default:
		return refuse("csikit does not grow %s", fsType)
	}
	_, err = k.run.Run(ctx, c)
	return err
}
