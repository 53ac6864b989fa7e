package fusehost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// deviceFD is the number by which a server finds its descriptor: the first that
// os/exec gives to files besides the standard ones.
const deviceFD = 3

// prepared is a server that can be started.
type prepared struct {
	*exec.Cmd
	files []*os.File // the host's copies, closed after the start
	out   *tail
	mark  string // in the environment of the server and of all that come of it
}

const markName = "CSIKIT_FUSE_SERVER"

func newCommand(run *backends.FUSE, dev *os.File) (*prepared, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dev.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(10, 229) {
		return nil, fmt.Errorf("%w: the descriptor is none of /dev/fuse", backends.ErrInvalid)
	}
	if !filepath.IsAbs(run.Path) {
		return nil, fmt.Errorf("%w: server %q is no absolute path", backends.ErrInvalid, run.Path)
	}
	p := &prepared{out: newTail(secretsOf(run))}
	args, err := p.arguments(run)
	if err != nil {
		return nil, errors.Join(err, p.closeFiles())
	}
	p.Cmd = exec.Command(run.Path, args...) //nolint:noctx // it outlives the call
	p.ExtraFiles = append([]*os.File{dev}, p.files...)
	p.Dir = "/"
	p.mark = markName + "=" + rand.Text()
	p.Env = append(environment(run), p.mark)
	p.Stdout, p.Stderr = p.out, p.out
	p.WaitDelay = time.Second // for what children of it write
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if run.UID != 0 || run.GID != 0 {
		p.SysProcAttr.Credential = &syscall.Credential{Uid: run.UID, Gid: run.GID}
	}
	return p, nil
}

// arguments makes the files, and puts their paths and the descriptor's number in.
func (p *prepared) arguments(run *backends.FUSE) ([]string, error) {
	args := slices.Clone(run.Args)
	put := func(what, with string) (used bool) {
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, what, with)
			used = used || args[i] != a
		}
		return used
	}
	put("{fd}", strconv.Itoa(deviceFD))
	for _, name := range slices.Sorted(maps.Keys(run.Files)) {
		f, err := secretFile(run.Files[name].Reveal())
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", name, err)
		}
		p.files = append(p.files, f)
		if !put("{file:"+name+"}", "/proc/self/fd/"+strconv.Itoa(deviceFD+len(p.files))) {
			return nil, fmt.Errorf("%w: no argument uses {file:%s}", backends.ErrInvalid, name)
		}
	}
	for _, a := range args {
		if strings.Contains(a, "{file:") {
			return nil, fmt.Errorf("%w: an argument uses a {file:} that is not in Files", backends.ErrInvalid)
		}
	}
	return args, exposed(run, args)
}

func environment(run *backends.FUSE) []string {
	env := os.Environ()
	for _, k := range slices.Sorted(maps.Keys(run.Vars)) {
		env = append(env, k+"="+strings.ReplaceAll(run.Vars[k], "{fd}", strconv.Itoa(deviceFD)))
	}
	for _, k := range run.Env.Keys() {
		v, _ := run.Env.Lookup(k)
		env = append(env, k+"="+v)
	}
	return env
}

func (p *prepared) closeFiles() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// secretFile is a file in memory that has no name, and that nobody can change.
func secretFile(content string) (*os.File, error) {
	fd, err := unix.MemfdCreate("secret", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "secret")
	_, err = f.WriteString(content)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// starter starts all servers from one thread, which lives as long as the host: a
// server dies with the thread that made it (PR_SET_PDEATHSIG), so that no server is
// left of a host that is gone, and none comes to run twice.
type starter struct {
	mu   sync.Mutex
	jobs chan func()
}

func (s *starter) start(c *prepared) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs == nil {
		jobs := make(chan func())
		s.jobs = jobs
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			for job := range jobs {
				job()
			}
		}()
	}
	done := make(chan error)
	s.jobs <- func() { done <- c.Start() }
	if err := errors.Join(<-done, c.closeFiles()); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOEXEC) {
			err = fmt.Errorf("%w: %w", backends.ErrPrecondition, err)
		}
		return nil, err
	}
	return &process{cmd: c.Cmd, mark: c.mark, pid: c.Process.Pid, out: c.out, started: time.Now(), gone: make(chan struct{})}, nil
}

// close lets the thread go, when no server is left.
func (s *starter) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs != nil {
		close(s.jobs)
		s.jobs = nil
	}
}

// process is a server that was started.
type process struct {
	cmd     *exec.Cmd
	mark    string
	pid     int
	out     *tail
	started time.Time
	gone    chan struct{} // closed when it and its group are

	mu     sync.Mutex
	reaped bool
	exit   string
}

// reap waits for the end of the process, and ends what is left of its group before
// its number can mean another one.
func (p *process) reap() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	_ = unix.Kill(-p.pid, unix.SIGKILL) // ESRCH: nobody else is in it
	p.reaped = true
	p.mu.Unlock()
	killMarked(p.mark)
	_ = p.cmd.Wait() // its state says all that the error does
	p.mu.Lock()
	p.exit = p.cmd.ProcessState.String()
	p.mu.Unlock()
	close(p.gone)
}

// killMarked ends what has left the group of a server, and with it the host's hands:
// a server that went to the background would live on with the mount.
func killMarked(mark string) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return
	}
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0) // or the number could come to mean another one
		if err != nil {
			continue
		}
		if b, err := os.ReadFile(f); err == nil && slices.Contains(strings.Split(string(b), "\x00"), mark) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it has ended, or it ends
		}
		_ = unix.Close(fd)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

func (p *process) signal(s ...unix.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range s {
		if !p.reaped {
			_ = unix.Kill(-p.pid, s) // ESRCH: it has just ended
		}
	}
}

// end makes the process go. It is not cut short by ctx once it has begun: a server
// that is half ended helps nobody.
func (p *process) end(ctx context.Context, grace, reap time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.signal(unix.SIGTERM, unix.SIGCONT)
	select {
	case <-p.gone:
		return nil
	case <-time.After(grace):
	}
	p.signal(unix.SIGKILL)
	select {
	case <-p.gone:
		return nil
	case <-time.After(reap):
		return fmt.Errorf("%w: process %d does not die by SIGKILL", backends.ErrUnavailable, p.pid)
	}
}

func (p *process) status(id string) mounter.ServerStatus {
	st := mounter.ServerStatus{ID: id, State: mounter.ServerRunning, Started: p.started, PID: p.pid, Output: p.out.String()}
	if p.ended() {
		p.mu.Lock()
		defer p.mu.Unlock()
		st.State, st.Exit = mounter.ServerExited, p.exit
	}
	return st
}
