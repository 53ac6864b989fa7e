package loopfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// renewLoop makes the kernel forget a loop device with its settings, unless
// somebody uses it, and make it anew.
func renewLoop(path string) error {
	var n int
	if _, err := fmt.Sscanf(path, "/dev/loop%d", &n); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	c, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing was written
	if err := unix.IoctlSetInt(int(c.Fd()), unix.LOOP_CTL_REMOVE, n); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	// The device that is asked for next is made when it is missing: this one is
	// for those who expect the same devices as before.
	_ = unix.IoctlSetInt(int(c.Fd()), unix.LOOP_CTL_ADD, n)
	return nil
}
