package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/csikit/csikit/mounter/mnt"
)

const (
	envInside  = "CSIKIT_DEMO_INSIDE" // set in the inner process
	insideRoot = "root"
	insideUser = "user"
)

// enterNamespace runs this program again in a mount namespace of its own; where
// it is not root, in a user namespace too.
func enterNamespace(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	// Setpgid: a Ctrl-C reaches the inner process once, through Cancel.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGTERM}
	inside := insideRoot
	if os.Geteuid() != 0 {
		inside = insideUser
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			Setpgid:     true, Pdeathsig: syscall.SIGTERM,
		}
	}
	cmd.Env = append(os.Environ(), envInside+"="+inside)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return errSaid
	case err != nil && inside == insideUser:
		return fmt.Errorf("a user namespace cannot be made here (%w): run it as root", err)
	}
	return err
}

func mountsBelow(dir string) ([]string, error) {
	all, err := mnt.List()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range all {
		if strings.HasPrefix(m.Point, dir+"/") {
			points = append(points, m.Point)
		}
	}
	return points, nil
}

// mountLines is what the kernel says of the mounts at path, topmost first.
func mountLines(path string) ([]string, error) {
	stack, err := mnt.At(path)
	if err != nil {
		return nil, err
	}
	lines := make([]string, 0, len(stack))
	for _, m := range stack {
		lines = append(lines, fmt.Sprintf("%s %s on %s (%s)", m.FSType, m.Source, m.Point, strings.Join(m.Options, ",")))
	}
	return lines, nil
}

// sizeOf is the size of the file system at path in bytes, as df shows it.
func sizeOf(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Blocks) * int64(st.Bsize), nil //nolint:unconvert // Bsize has 32 bits on some systems
}
