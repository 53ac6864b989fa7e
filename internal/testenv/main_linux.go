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
	for _, f := range loopsBelow(dir) {
		cleared(f)
	}
	var left []error
	for _, l := range DetachLoops(dir) {
		left = append(left, errors.New("loop device left behind: "+l))
	}
	return errors.Join(left...)
}

// DetachLoops detaches the loop devices on files below dir, and names them with their
// files. One that is in use goes when it is closed.
func DetachLoops(dir string) (found []string) {
	for _, f := range loopsBelow(dir) {
		dev := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f)))
		d, err := os.Open(dev)
		// While it is open it stays on its file. Before that it may have been detached, and
		// be another program's by now.
		if below(f, dir) {
			found = append(found, dev+" on "+backingFile(f))
			const loopClrFD = 0x4C01
			if err == nil {
				_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), loopClrFD, 0) // who looks again sees it
			}
		}
		_ = d.Close() // nothing was written; nil is no file
	}
	return found
}

// loopsBelow are the backing_files in sysfs of the loop devices on files below dir.
func loopsBelow(dir string) []string {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is good
	return slices.DeleteFunc(files, func(f string) bool { return !below(f, dir) })
}

// below: in a chroot the kernel may show the path from outside of it.
func below(f, dir string) bool { return strings.Contains(backingFile(f), dir+"/") }

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
	DetachLoops(dir)
	return err
}

// backingFile is what is behind a loop device; "" when nothing is.
func backingFile(f string) string {
	b, _ := os.ReadFile(f) // it is missing where nothing is
	return strings.TrimSpace(string(b))
}

// cleared waits for a loop device that was detached while somebody had it open
// (AUTOCLEAR): it goes when the kernel gets to it, a moment after the end of that
// process.
func cleared(f string) {
	for range 50 {
		auto, err := os.ReadFile(filepath.Join(filepath.Dir(f), "autoclear"))
		if err != nil || strings.TrimSpace(string(auto)) != "1" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
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
