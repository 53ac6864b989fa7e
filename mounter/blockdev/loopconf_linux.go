package blockdev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// configure binds dev to backing in one call, or in steps on a kernel before
// 5.8, which does not have that call.
func configure(dev, backing *os.File, o AttachOptions) error {
	c := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: o.BlockSize}
	copy(c.Info.File_name[:63], o.Name)
	if o.ReadOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.DirectIO {
		c.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	err := unix.IoctlLoopConfigure(int(dev.Fd()), &c)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		// EINVAL is also a bad block size, which the steps then name.
		return configureInSteps(dev, backing, o)
	}
	if err != nil {
		return fmt.Errorf("LOOP_CONFIGURE: %w", err)
	}
	return nil
}

// configureInSteps is the way before LOOP_CONFIGURE. The device is bound from
// the first step on and is cleared again when a later one fails.
func configureInSteps(dev, backing *os.File, o AttachOptions) error {
	fd := int(dev.Fd())
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, int(backing.Fd())); err != nil {
		return fmt.Errorf("LOOP_SET_FD: %w", err)
	}
	if err := configureSteps(fd, o); err != nil {
		return errors.Join(err, unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0))
	}
	return nil
}

func configureSteps(fd int, o AttachOptions) error {
	var info unix.LoopInfo64
	copy(info.File_name[:63], o.Name)
	if err := retryAgain(func() error { return unix.IoctlLoopSetStatus64(fd, &info) }); err != nil {
		return fmt.Errorf("LOOP_SET_STATUS64: %w", err)
	}
	if o.BlockSize != 0 {
		if err := retryAgain(func() error { return unix.IoctlSetInt(fd, unix.LOOP_SET_BLOCK_SIZE, int(o.BlockSize)) }); err != nil {
			return fmt.Errorf("LOOP_SET_BLOCK_SIZE %d: %w", o.BlockSize, err)
		}
	}
	if o.DirectIO {
		// EINVAL: the file system cannot; the status that is read next says so.
		err := unix.IoctlSetInt(fd, unix.LOOP_SET_DIRECT_IO, 1)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("LOOP_SET_DIRECT_IO: %w", err)
		}
	}
	return nil
}

// retryAgain repeats a step for which older kernels answer EAGAIN while pages of
// the device are still cached.
func retryAgain(step func() error) error {
	var err error
	for range attachTries {
		if err = step(); !errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
	return err
}
