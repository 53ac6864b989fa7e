package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
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
