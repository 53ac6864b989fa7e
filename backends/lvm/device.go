package lvm

import (
	"context"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
)

// kernel is device-mapper as far as this package looks at it itself. Tests on
// machines without one have another.
type kernel interface {
	// device is where the device of an LV is, by its UUID; "": there is none. It
	// needs neither lvm nor udevd.
	device(uuid string) (path string, err error)
	// busy says whether anybody has the device open. One that is not there is not.
	busy(uuid string) (bool, error)
	// number of the device at a path, "253:7".
	number(path string) (string, error)
	// readable opens a device to copy from; others may have it open.
	readable(path, uuid string) (disk, error)
	// mountOf opens the root of what is mounted, to be written to, of a device; nil:
	// nothing is, or not for this process.
	mountOf(ctx context.Context, path string) (*os.File, error)
	// writes counts what was written to the device of an LV, and what is about to be.
	writes(uuid string) (uint64, error)
	// metadataOf is the device with the metadata of a thin pool, "" when that is not
	// active, and whether a snapshot of it is held.
	metadataOf(uuid string) (path string, held bool, err error)
	// suspended are the UUIDs, with this prefix, of devices that are suspended.
	suspended(prefix string) ([]string, error)
	// message sends a thin pool a message.
	message(uuid, text string) error
	// exclusive opens a device that nobody else mounts or builds on meanwhile.
	exclusive(path, uuid string) (disk, error)
}

// disk is a device that is wiped or copied.
type disk interface {
	size() int64
	readAt(p []byte, off int64) error
	writeAt(p []byte, off int64) error
	// zero makes a range read as zeros; by deallocation, if the disk promises that.
	zero(off, n int64, deallocate bool) error
	sync() error
	close() error
}

// activate makes the device of an LV, if it is not there, and says where it is.
func (b *Backend) activate(ctx context.Context, c *Class, v *volume, and ...string) (path string, err error) {
	if path, err = b.kernel.device(v.dmUUID()); err != nil {
		return "", err
	}
	if path == "" || len(and) > 0 {
		if err := b.switchOn(ctx, c, v, and); err != nil {
			return "", err
		}
		if path, err = b.kernel.device(v.dmUUID()); err != nil {
			return "", err
		}
	}
	if path == "" {
		return "", fmt.Errorf("%w: logical volume %s was activated, and has no device %s", backends.ErrUnavailable, v.path(), v.dmUUID())
	}
	return path, nil
}

// current gives an LV as it is now, to who has the VG's turn: since it was looked at it
// may have been renamed, or be gone, and its name another's.
func (b *Backend) current(ctx context.Context, c *Class, v *volume) (*volume, error) {
	g, err := b.peek(ctx, c)
	if err != nil {
		if g, _, err = b.lookPartial(ctx, c); err != nil {
			return nil, err
		}
	}
	if now := g.byUUID(v.uuid); now != nil {
		return now, nil
	}
	return nil, fmt.Errorf("%w: logical volume %s is gone", backends.ErrUnavailable, v.path())
}

func (b *Backend) switchOn(ctx context.Context, c *Class, v *volume, and []string) error {
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	if v, err = b.current(ctx, c, v); err != nil {
		return err
	}
	argv := append([]string{"lvchange", "--activate", "y"}, and...)
	if len(and) == 0 {
		// lvm takes the two not together. No LV of this driver has the flag.
		argv = append(argv, "--ignoreactivationskip")
	}
	if err := b.tool.change(ctx, c.VG, append(argv, v.path())...); err != nil {
		return classify(fmt.Errorf("activate %s: %w", v.path(), err))
	}
	b.step("open:active")
	return nil
}

// deactivate takes the device of an LV away, if there is one and nobody has it open.
func (b *Backend) deactivate(ctx context.Context, c *Class, v *volume) error {
	uuid := v.dmUUID()
	dev, err := b.kernel.device(uuid)
	if dev == "" || err != nil {
		return err
	}
	if err := b.idle(v.path(), uuid, nil); err != nil {
		return err
	}
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	if v, err = b.current(ctx, c, v); err != nil {
		if dev, again := b.kernel.device(uuid); dev == "" && again == nil {
			return nil
		}
		return err
	}
	path := v.path()
	restore := b.lift(uuid)
	failed := b.tool.change(ctx, c.VG, "lvchange", "--activate", "n", path)
	b.step("close:inactive")
	if dev, err = b.kernel.device(uuid); dev == "" || err != nil {
		return err // gone, whatever lvm said
	}
	restore()
	if err := b.idle(path, uuid, failed); err != nil {
		return err
	}
	return classify(fmt.Errorf("deactivate %s: %w", path, firstOf(failed, errNoReason)))
}

// idle refuses what somebody has open.
func (b *Backend) idle(path, uuid string, failed error) error {
	busy, err := b.kernel.busy(uuid)
	if !busy || err != nil {
		return err
	}
	err = fmt.Errorf("%w: logical volume %s is open", backends.ErrInUse, path)
	if failed != nil {
		err = fmt.Errorf("%w: %w", err, failed)
	}
	return err
}
