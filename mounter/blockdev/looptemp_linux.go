package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// AttachTemporary is AttachLoop for as long as somebody has the device open: the
// kernel detaches it when the last descriptor is closed and the last mount of it
// is gone, also when this process dies. The descriptor in the Device that is
// returned is the first. It needs LOOP_CONFIGURE (Linux 5.8).
func AttachTemporary(ctx context.Context, backing *os.File, o AttachOptions) (*Device, error) {
	var kept *os.File
	l, err := attach(ctx, backing, o, func(dev, backing *os.File, o AttachOptions) (err error) {
		// The one that attach opened is closed at its end.
		fd, err := unix.FcntlInt(dev.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		second := os.NewFile(uintptr(fd), dev.Name())
		c := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: o.BlockSize}
		copy(c.Info.File_name[:63], o.Name)
		c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		if o.ReadOnly {
			c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
		}
		if o.DirectIO {
			c.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
		}
		if err := unix.IoctlLoopConfigure(int(dev.Fd()), &c); err != nil {
			return errors.Join(fmt.Errorf("LOOP_CONFIGURE: %w", err), second.Close())
		}
		kept = second
		return nil
	})
	if err != nil {
		if kept != nil {
			err = errors.Join(err, kept.Close())
		}
		return nil, err
	}
	d, err := Open(ctx, l.Path, !o.ReadOnly)
	return d, errors.Join(err, kept.Close())
}
