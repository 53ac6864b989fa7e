package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// envInside is set in the process that has mounts of its own.
const envInside = "CSIKIT_MUTANTS_INSIDE"

// inNamespace runs this program again where its mounts are nobody else's.
func inNamespace(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("it mounts, and needs root")
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	return cmd.Run()
}

// driverAttr: a driver does not outlive this program.
func driverAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
