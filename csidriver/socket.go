package csidriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what Listen waits for; both are over at once unless something is
// wrong.
const (
	lockWait = 10 * time.Second // another starter has the directory
	dialWait = 2 * time.Second  // whoever serves the socket that is there
)

// listenUnix makes the socket. Looking at what is there, removing it and binding
// are one step for every starter that goes through here: the directory is locked
// meanwhile, for a lock file beside the socket is what the spec forbids.
func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	dir, err := openLocked(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // gives the lock back; nothing was written
	name, err := socketName(dir, path)
	if err != nil {
		return nil, err
	}
	if err := clear(path, name); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: bornWith(mode)}
	lis, err := lc.Listen(context.Background(), "unix", name)
	if err != nil {
		return nil, err
	}
	ul := lis.(*net.UnixListener)
	ul.SetUnlinkOnClose(false) // by name alone it would take a successor's
	born, err := finish(path, mode)
	if err != nil {
		return nil, errors.Join(err, ul.Close())
	}
	return &unixListener{UnixListener: ul, path: path, born: born}, nil
}

// finish gives the new socket the bits that the umask took, and identifies it.
func finish(path string, mode fs.FileMode) (fs.FileInfo, error) {
	born, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if born.Mode().Perm() != mode {
		if err := os.Chmod(path, mode); err != nil {
			return nil, err
		}
	}
	return born, nil
}

// openLocked opens and locks the directory of the socket.
func openLocked(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the directory of the socket must exist: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if err := lock(dir, lockWait); err != nil {
		return nil, errors.Join(fmt.Errorf("lock directory %s: %w", path, err), dir.Close())
	}
	return dir, nil
}

// lock takes the lock of an open directory. The kernel gives it back when the
// holder dies.
func lock(dir *os.File, wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("another process has held it for %v: %w", wait, err)
		}
	}
}

// clear makes sure that nothing is at path, and removes only a socket that is
// proven dead: the kernel refuses the connection. Any doubt leaves it.
func clear(path, name string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("there is something that is no socket (%v); it is left alone: %w", fi.Mode(), syscall.EADDRINUSE)
	}
	conn, err := (&net.Dialer{Timeout: dialWait}).DialContext(context.Background(), "unix", name)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("another driver serves here: %w", syscall.EADDRINUSE), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, syscall.ENOENT):
		return nil // its owner removed it just now
	default:
		return fmt.Errorf("cannot tell whether another driver serves here: %w", err)
	}
}

// unixListener removes its socket when it is closed, if it is still its own.
type unixListener struct {
	*net.UnixListener
	path string
	born fs.FileInfo
	once sync.Once
	err  error
}

// Addr gives the path that was asked for, also where the kernel was given a
// shorter name.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket first: as long as the listener is open its inode
// number cannot belong to a successor.
func (l *unixListener) Close() error {
	l.once.Do(func() { l.err = errors.Join(l.remove(), l.UnixListener.Close()) })
	return l.err
}

func (l *unixListener) remove() error {
	fi, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(fi, l.born) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(l.path)
}
