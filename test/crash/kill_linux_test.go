package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// kill is where the driver dies: at a fault point, or before a system call; the
// n-th of its kind since the RPC began.
type kill struct {
	point, call string
	n           int
}

func (k kill) String() string {
	if k.point != "" {
		return fmt.Sprintf("%s:%d", k.point, k.n)
	}
	return fmt.Sprintf("%s#%d", k.call, k.n)
}

func parseKill(s string) (kill, error) {
	name, number, ok := strings.Cut(s, "#")
	k := kill{call: name}
	if !ok {
		name, number, ok = strings.Cut(s, ":")
		k = kill{point: name}
	}
	n, err := strconv.Atoi(number)
	if k.n = n; err != nil || !ok {
		return k, fmt.Errorf("%q: want point:n or call#n", s)
	}
	return k, nil
}

// during runs a call of the scenario and kills the driver in it; died is false when
// the call never came there.
func (k kill) during(e *env, call func(context.Context) error) (died bool, err error) {
	ctx, cancel := context.WithTimeout(e.client, 60*time.Second)
	defer cancel()
	if k.point != "" {
		if err := os.WriteFile(e.path("fault"), []byte(fmt.Sprintf("%s:%d", k.point, k.n)), 0o600); err != nil {
			return false, err
		}
		return e.died(call(ctx)), nil
	}
	s, err := e.trace(k.call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", k.call, k.n))
	if err != nil {
		return false, err
	}
	died = e.died(call(ctx))
	return died, s.stop(died)
}

// died says whether the driver is dead after an answer. One that is dying is
// waited for.
func (e *env) died(answer error) bool {
	if answer == nil {
		return e.dead(0)
	}
	ctx, cancel := context.WithTimeout(e.client, patience)
	defer cancel()
	_, err := csi.NewIdentityClient(e.Conn()).Probe(ctx, &csi.ProbeRequest{})
	return err != nil && e.dead(patience)
}

// strace is attached to a driver.
type strace struct {
	cmd *exec.Cmd
	log string
}

// trace attaches strace to the driver, for calls.
func (e *env) trace(calls string, args ...string) (*strace, error) {
	s := &strace{log: e.path("strace")}
	args = append([]string{"-f", "-y", "-s", "0", "-o", s.log, "-e", "signal=none", "-e", "trace=" + calls, "-p", strconv.Itoa(e.PID())}, args...)
	s.cmd = exec.Command("strace", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil, errors.Join(fmt.Errorf("strace: %s: %w", line, err), s.cmd.Process.Kill(), s.cmd.Wait())
		}
		if strings.Contains(line, "attached") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }() // until strace ends
	return s, nil
}

// stop lets go of the driver. With one that died strace ends by itself; a signal
// while it does lets it hang, as when the driver dies just after it was seen alive:
// then it is killed, which is nothing that the driver did.
func (s *strace) stop(died bool) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.cmd.Wait() // with whatever the driver ended
	}()
	if !died {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	select {
	case <-done:
		return nil
	case <-time.After(10 * time.Second):
	}
	err := s.cmd.Process.Kill()
	<-done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// changing are the system calls that may change something outside of the process.
var changing = strings.Fields(`mount umount2 move_mount open_tree mount_setattr fsopen fsmount fsconfig pivot_root
	rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir link linkat symlink symlinkat openat creat
	ftruncate truncate fallocate copy_file_range fsync fdatasync syncfs sync_file_range sync
	chmod fchmod fchmodat chown fchown fchownat mknod mknodat setxattr fsetxattr utimensat quotactl
	write pwrite64 writev pwritev ioctl`)

// reading are the ioctls that change nothing.
var reading = regexp.MustCompile(`BLKGET|BLKSSZGET|BLKPBSZGET|BLKROGET|BLKIOMIN|BLKIOOPT|LOOP_GET_STATUS|LOOP_CTL_GET_FREE|_INFO\b|GEOMETRY|FIEMAP|DISKSEQ|TCGETS|GETFLAGS|FSGETXATTR|BLKGETDISKSEQ|EXT4_IOC_GETSTATE|GETFSUUID`)

// entering is the line of a call that begins, or is seen whole.
var entering = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)

// changes says whether a call, as strace shows it, changes something.
func changes(name, args string) bool {
	if !slices.Contains(changing, name) {
		return false
	}
	switch name {
	case "openat":
		return (strings.Contains(args, "O_CREAT") || strings.Contains(args, "O_TRUNC")) && !strings.Contains(args, "/driver.log")
	case "open_tree":
		return strings.Contains(args, "OPEN_TREE_CLONE")
	case "ioctl":
		return !reading.MatchString(args)
	case "write", "pwrite64", "writev", "pwritev":
		_, path, ok := strings.Cut(args, "<")
		return ok && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/memfd:") && !strings.HasPrefix(path, "/dev/null") &&
			!strings.Contains(path, "/driver.log>")
	}
	return true
}

// syscalls are the state-changing calls of a driver, as an undisturbed run showed
// them, and of the programs that it ran: a kill for each, that is, for each name and
// its number on a thread.
func syscalls(log string, threads []string) (driver, tools []kill, err error) {
	b, err := os.ReadFile(log)
	if err != nil {
		return nil, nil, err
	}
	type counted struct{ tid, call string }
	number := map[counted]int{}
	open := map[string]kill{} // of a thread that is inside a call
	mine := map[string]bool{}
	for _, t := range threads {
		mine[t] = true
	}
	note := func(tid string, k kill, text string) {
		list := &tools
		if mine[tid] {
			list = &driver
		}
		failed := strings.Contains(text, " = -1 ")
		if !failed && !slices.Contains(*list, k) {
			*list = append(*list, k)
		}
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		tid, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "<... ") {
			if strings.Contains(rest, "clone") {
				thread(mine, tid, rest)
			}
			if k, ok := open[tid]; ok {
				note(tid, k, rest)
				delete(open, tid)
			}
			continue
		}
		m := entering.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name, args := m[2], m[3]
		if strings.HasPrefix(name, "clone") {
			thread(mine, tid, rest)
			continue
		}
		number[counted{tid, name}]++
		if !changes(name, args) {
			continue
		}
		k := kill{call: name, n: number[counted{tid, name}]}
		if strings.HasSuffix(line, "<unfinished ...>") {
			open[tid] = k
			continue
		}
		note(tid, k, args)
	}
	return driver, thin(tools, driver), nil
}

// mostOfOne is how often a program is killed at one kind of call.
const mostOfOne = 12

// thin leaves out of tools what kills the driver all the same, and most of what is
// repeated often.
func thin(tools, driver []kill) []kill {
	byCall := map[string][]kill{}
	for _, k := range tools {
		if !slices.Contains(driver, k) {
			byCall[k.call] = append(byCall[k.call], k)
		}
	}
	var all []kill
	for _, call := range slices.Sorted(maps.Keys(byCall)) {
		of := byCall[call]
		for i := range min(len(of), mostOfOne) {
			all = append(all, of[i*len(of)/min(len(of), mostOfOne)])
		}
	}
	return all
}

// thread notes a thread that one of the driver's made; a child process is none.
func thread(mine map[string]bool, tid, text string) {
	_, result, ok := strings.Cut(text, " = ")
	if ok && mine[tid] && !strings.Contains(text, "CLONE_VFORK") && !strings.Contains(text, "SIGCHLD") {
		made, _, _ := strings.Cut(result, "<")
		mine[strings.TrimSpace(made)] = true
	}
}

// threads are those that the driver has.
func (e *env) threads() ([]string, error) {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", e.PID()))
	var names []string
	for _, t := range all {
		names = append(names, t.Name())
	}
	return names, err
}

// children are the processes that the driver has, by whichever thread.
func (e *env) children() (pids []string) {
	threads, _ := e.threads() // none of a driver that has ended
	for _, t := range threads {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", e.PID(), t)) // it may have ended
		pids = append(pids, strings.Fields(string(b))...)
	}
	return pids
}
