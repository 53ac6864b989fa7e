package kmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// Unmount takes the topmost mount off target. A target that is no mount point, or
// does not exist, is no error.
func (m *Mounter) Unmount(target string) error {
	path, err := follow(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = mnt.Unmount(path)
	}
	if err != nil {
		return fmt.Errorf("kmount: unmount: %w", err)
	}
	return nil
}

// UnmountWithForce is Unmount that, when it does not return in time, is tried once
// more with force, which makes the kernel give up requests to a server that is
// gone. A mount that is busy is an error and is not forced. When the second try
// does not return in time either, the error is context.DeadlineExceeded, and the
// kernel may still do it.
func (m *Mounter) UnmountWithForce(target string, umountTimeout time.Duration) error {
	return escalate(umountTimeout, func() error { return m.Unmount(target) }, func() error {
		m.log.Warn("unmount takes too long; trying with force", "target", target, "timeout", umountTimeout)
		path, err := follow(target)
		if err == nil {
			err = forceUnmount(path)
		}
		if err != nil {
			return fmt.Errorf("kmount: unmount %s with force: %w", target, err)
		}
		return nil
	})
}

// escalate calls second when first does not return in time.
func escalate(d time.Duration, first, second func() error) error {
	err := within(d, first)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return within(d, second)
}

// within gives up waiting for call after a while. A call that never returns keeps
// its goroutine: nothing ends a system call that waits for a dead server.
func within(d time.Duration, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("after %s: %w", d, context.DeadlineExceeded)
	}
}

// typeOf asks the device what is on it, for a mount without a type.
func (m *Mounter) typeOf(source string) (fstype string, err error) {
	ctx := context.Background()
	d, err := m.kernel.OpenDevice(ctx, source)
	if err != nil {
		return "", fmt.Errorf("%w: no file system type was given, and the source is no device to be asked: %w", backends.ErrInvalid, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	content, err := d.Probe(ctx)
	if err != nil {
		return "", err
	}
	if content.State != blockdev.Filesystem {
		return "", fmt.Errorf("%w: no file system type was given, and the device holds %s", backends.ErrPrecondition, content)
	}
	return content.Type, nil
}

// hasHelper reports whether mounts of this type are made by a program.
func (m *Mounter) hasHelper(fstype string) bool {
	k, ok := m.kernel.(interface{ HasMountHelper(fsType string) bool })
	return !ok || k.HasMountHelper(fstype)
}
