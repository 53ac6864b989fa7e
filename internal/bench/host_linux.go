package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

const envInside = "CSIKIT_BENCH_INSIDE"

// inNamespace runs f in a process with a mount namespace of its own: by
// re-execution, for unshare in a Go process reaches one thread only.
func inNamespace(f func() int) int {
	if os.Getenv(envInside) != "" {
		return f()
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: mounts and loop devices need root")
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // ended by its own signals
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	err := cmd.Start()
	if err == nil {
		go func() {
			for s := range signals {
				_ = cmd.Process.Signal(s) // it cleans up; if it has ended, there is nothing to tell
			}
		}()
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return 1 // a signal
}

// childAttributes: a driver does not outlive the benchmark, and does not get
// the terminal's signals: stop ends it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// cleanUp removes dir, and says what the drivers left: mounts, loop devices,
// volumes.
func cleanUp(dir string) error {
	left := errors.Join(leftMounts(dir), leftLoops(dir), leftFiles(dir))
	if left != nil {
		left = fmt.Errorf("left behind: %w", left)
	}
	return errors.Join(left, os.RemoveAll(dir))
}

// leftMounts unmounts, so that RemoveAll meets no mount.
func leftMounts(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var left []error
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			left = append(left, fmt.Errorf("mount on %s", f[4]), unix.Unmount(f[4], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
	}
	return errors.Join(left...)
}

func leftLoops(dir string) error {
	var left []error
	for _, l := range testenv.DetachLoops(dir) {
		left = append(left, errors.New("loop device "+l))
	}
	return errors.Join(left...)
}

// leftFiles looks for volumes by their name.
func leftFiles(dir string) error {
	var left []error
	for _, pattern := range []string{"run-*/volumes/*", "run-*/data/bench-*", "run-*/data/*/bench-*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, f := range files {
			left = append(left, fmt.Errorf("file %s", f))
		}
	}
	return errors.Join(left...)
}

// diskOf tells on what the volumes were, for what fsync costs depends on it.
func diskOf(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return err.Error()
	}
	switch uint32(s.Type) { // of another size on each architecture
	case unix.EXT4_SUPER_MAGIC:
		return "on ext4"
	case unix.XFS_SUPER_MAGIC:
		return "on xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "on btrfs"
	case unix.TMPFS_MAGIC:
		return "in memory (tmpfs)"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "on overlayfs"
	}
	return fmt.Sprintf("on a file system of type %#x", s.Type)
}

// mountMemory makes a directory that is a file system in memory.
func mountMemory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return unix.Mount("bench", dir, "tmpfs", 0, "mode=700,nr_inodes=0")
}

func unmountMemory(dir string) error {
	return errors.Join(unix.Unmount(dir, unix.UMOUNT_NOFOLLOW), os.Remove(dir))
}
