package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Main is what TestMain calls. As root it runs the tests in a child process with
// a mount namespace of its own (never by unshare in this process: its threads
// would differ) and with TMPDIR in a fresh directory, and afterwards fails when
// a loop device on a file of that directory, or a process that the tests started,
// is left.
func Main(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(envInside) != "" {
		os.Exit(m.Run())
	}
	code, err := runInside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runInside() (int, error) {
	// Not in TMPDIR: the path of a socket may have 107 bytes. Not in /tmp, which may
	// be memory: pools and their direct I/O want a disk.
	dir, err := os.MkdirTemp("/var/tmp", "csikit-")
	if err != nil {
		return 1, err
	}
	// By path, looked up in the new namespace: /proc/self/exe would belong to the
	// old one, and its name mean nothing there.
	exe, err := os.Executable()
	if err != nil {
		return 1, err
	}
	if err := adopt(); err != nil {
		return 1, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envInside+"=1", "TMPDIR="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, err
	}
	left := errors.Join(leftProcesses(), leftLoops(dir))
	if err := os.RemoveAll(dir); err != nil {
		left = errors.Join(left, err)
	}
	return cmd.ProcessState.ExitCode(), left
}

// leftLoops names loop devices whose backing file lies in dir, and detaches
// them so that one careless test does not fail the next run.
func leftLoops(dir string) error {
	var left []error
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, f := range files {
		b := backingFile(f)
		// Contains: in a chroot the kernel may show the path from outside of it.
		if !strings.Contains(b, dir+"/") || cleared(f) {
			continue
		}
		left = append(left, fmt.Errorf("loop device left behind: %s on %s", detach(f), b))
	}
	return errors.Join(left...)
}

// detach detaches the loop device of a backing_file in sysfs.
func detach(f string) (dev string) {
	dev = "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f)))
	if d, err := os.Open(dev); err == nil {
		const loopClrFD = 0x4C01
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), loopClrFD, 0)
		_ = d.Close()
	}
	return dev
}

// TakeBack unmounts what is mounted below dir and detaches the loop devices on
// files below it: after a child that was to fail, and to leave things behind.
func TakeBack(dir string) error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, line := range slices.Backward(strings.Split(string(b), "\n")) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			err = errors.Join(err, os.NewSyscallError("umount "+f[1], syscall.Unmount(f[1], syscall.MNT_DETACH)))
		}
	}
	files, globErr := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if strings.Contains(backingFile(f), dir+"/") {
			detach(f)
		}
	}
	return errors.Join(err, globErr)
}

// backingFile is what is behind a loop device; "" when nothing is.
func backingFile(f string) string {
	b, _ := os.ReadFile(f) // it is missing where nothing is
	return strings.TrimSpace(string(b))
}

// cleared waits for a loop device that was detached while somebody had it open
// (AUTOCLEAR): it goes when the kernel gets to it, a moment after the end of that
// process.
func cleared(f string) bool {
	for range 50 {
		auto, err := os.ReadFile(filepath.Join(filepath.Dir(f), "autoclear"))
		if err != nil {
			return true
		}
		if strings.TrimSpace(string(auto)) != "1" {
			return false
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// adopt makes orphans of the tests children of this process, whatever their
// environment and group: they can be found afterwards.
func adopt() error {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("child subreaper: %w", errno)
	}
	return nil
}

// leftProcesses names and ends the children that this process has been given:
// those of the tests that outlived them. What has ended, or was killed and has not had
// the processor since to end, is only reaped.
func leftProcesses() error {
	var left []error
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		var pid, parent int
		var state string
		_, rest, _ := strings.Cut(string(b), ") ") // behind the name, which may hold anything
		if n, _ := fmt.Sscanf(rest, "%s %d", &state, &parent); n != 2 || parent != os.Getpid() {
			continue
		}
		if n, _ := fmt.Sscanf(string(b), "%d", &pid); n != 1 {
			continue
		}
		if state != "Z" && !dying(rest, pid) {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // for the message
			left = append(left, fmt.Errorf("process left behind: %d %s", pid, strings.ReplaceAll(string(cmdline), "\x00", " ")))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	return errors.Join(left...)
}

// dying tells a process that was killed, or is ending, by its stat from its state on.
func dying(stat string, pid int) bool {
	const exiting = 0x4 // PF_EXITING
	if f := strings.Fields(stat); len(f) > 6 {
		if flags, err := strconv.ParseUint(f[6], 10, 64); err == nil && flags&exiting != 0 {
			return true
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true // it has ended
	}
	for line := range strings.Lines(string(status)) {
		name, set, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		if pending, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64); err == nil && pending&(1<<(syscall.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
