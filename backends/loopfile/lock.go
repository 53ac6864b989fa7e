package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
)

const (
	lockController = ".lock.controller"
	lockNode       = ".lock.node"
)

// lockHalves takes the pool for this process. The kernel gives the locks back
// when the process ends, however it ends.
func lockHalves(dir string, root *os.Root, h Half) (locks []*os.File, err error) {
	for _, l := range []struct {
		half Half
		name string
	}{{ControllerHalf, lockController}, {NodeHalf, lockNode}} {
		if h&l.half == 0 {
			continue
		}
		f, err := lockFile(dir, root, l.name)
		if err != nil {
			for _, f := range locks {
				_ = f.Close()
			}
			return nil, err
		}
		locks = append(locks, f)
	}
	return locks, nil
}

func lockFile(dir string, root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unavailable(filepath.Join(dir, name), err)
	}
	if ok, err := tryLock(f); err != nil || !ok {
		who, _ := root.ReadFile(name) // only for the message
		_ = f.Close()
		if err != nil {
			return nil, unavailable("flock "+filepath.Join(dir, name), err)
		}
		return nil, refuse("another driver serves %s: %s holds %s", dir, strings.TrimSpace(string(who)), name)
	}
	host, _ := os.Hostname() // "" says as much as there is to say
	who := fmt.Sprintf("pid %d on host %s\n", os.Getpid(), host)
	if err := errors.Join(f.Truncate(0), write0(f, who)); err != nil {
		_ = f.Close()
		return nil, unavailable(filepath.Join(dir, name), err)
	}
	return f, nil
}

func write0(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// tryLock takes an exclusive flock; false: somebody else has it.
func tryLock(f *os.File) (bool, error) { return tryFlock(f, syscall.LOCK_EX) }

// tryShare takes a shared flock; false: somebody has an exclusive one.
func tryShare(f *os.File) (bool, error) { return tryFlock(f, syscall.LOCK_SH) }

func tryFlock(f *os.File, how int) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, err
		}
	}
}

const (
	lockPoll = 2 * time.Millisecond
	lockWait = 10 * time.Second
)

// waitLock takes an exclusive flock within a bounded time. Its holders keep it
// for a few system calls; they may be another process.
func waitLock(ctx context.Context, f *os.File) error {
	timeout := time.NewTimer(lockWait)
	defer timeout.Stop()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		if ok, err := tryLock(f); ok || err != nil {
			return err
		}
		select {
		case <-poll.C:
		case <-timeout.C:
			return fmt.Errorf("%w: volume is locked by the other half of the driver", backends.ErrPending)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
