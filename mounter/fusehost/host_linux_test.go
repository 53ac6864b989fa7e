package fusehost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serveHost is a host in this process, and a client of it.
func serveHost(t testing.TB, mode os.FileMode) (*Client, string, *testenv.Log) {
	t.Helper()
	testenv.Root(t)
	log := &testenv.Log{}
	h := New(&Options{Logger: log.Text(), Grace: 200 * time.Millisecond, Max: 3})
	socket := filepath.Join(t.TempDir(), "s")
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	must(t, err)
	must(t, os.Chmod(socket, mode))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.Serve(ctx, lis) }()
	t.Cleanup(func() {
		stop()
		must(t, <-done)
	})
	return NewClient(socket), socket, log
}

// device is /dev/fuse, not mounted.
func device(t testing.TB) *os.File {
	t.Helper()
	f := os.NewFile(uintptr(testenv.FUSE(t, 0)), "/dev/fuse")
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// sh is a server that is a script; its descriptor is $0.
func sh(script string) *backends.FUSE {
	return &backends.FUSE{Path: "/bin/sh", Args: []string{"-c", script, "{fd}"}}
}

// until waits for what another process does.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not %s", what)
}

func find(t testing.TB, c *Client, id string) mounter.ServerStatus {
	t.Helper()
	st, err := c.Find(t.Context(), id)
	must(t, err)
	return st
}

// alive is false of a process that is only not reaped yet, by whoever got it.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// TestServer: a server gets its descriptor, arguments, environment and files, and
// nothing else that is open.
func TestServer(t *testing.T) {
	c, _, log := serveHost(t, 0o600)
	run := sh(`readlink /proc/self/fd/$0; echo $V $S; cat $1; ls -l /proc/$$/fd | grep -c 'fuse\|memfd'; id -u; echo; exec sleep 60`)
	run.Args = append(run.Args, "{file:key}")
	run.Vars, run.Env = map[string]string{"V": "n{fd}"}, backends.NewSecrets(map[string]string{"S": "canary-1"})
	run.Files = map[string]backends.Secret{"key": backends.NewSecret("canary-2\n")}
	run.UID, run.GID = 65534, 65534
	must(t, c.Start(t.Context(), mounter.Server{ID: "v", Device: device(t), Run: run}))
	until(t, "started", func() bool { return strings.Contains(find(t, c, "v").Output, "65534") })
	st := find(t, c, "v")
	if want := "/dev/fuse\nn3 [redacted]\n[redacted]\n2\n65534"; st.Output != want {
		t.Errorf("%q, want %q", st.Output, want)
	}
	pgid, err := unix.Getpgid(st.PID)
	if err != nil || pgid != st.PID || st.State != mounter.ServerRunning {
		t.Errorf("group %d, %v: %+v", pgid, err, st)
	}
	must(t, c.Stop(t.Context(), "v"))
	if st := find(t, c, "v"); st.State != mounter.ServerUnknown {
		t.Errorf("%+v", st)
	}
	until(t, "logged", func() bool { return strings.Contains(log.String(), "server ended") })
	if strings.Contains(log.String(), "canary") {
		t.Errorf("log: %s", log)
	}
}

// TestOneServer: an ID has one server, and what it was is known until it is stopped.
func TestOneServer(t *testing.T) {
	c, _, _ := serveHost(t, 0o600)
	dev, ctx := device(t), t.Context()
	again := mounter.Server{ID: "v", Device: dev}
	if err := c.Start(ctx, again); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	must(t, c.Start(ctx, mounter.Server{ID: "v", Device: dev, Run: sh("exec sleep 60")}))
	first := find(t, c, "v").PID
	var starts sync.WaitGroup
	for range 4 {
		starts.Go(func() {
			if err := c.Start(ctx, again); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	second := find(t, c, "v")
	if second.State != mounter.ServerRunning || second.PID == first || alive(first) {
		t.Errorf("%d, then %+v", first, second)
	}
	must(t, c.Stop(ctx, "v"))
	must(t, c.Stop(ctx, "v"))
	if err := c.Start(ctx, again); !errors.Is(err, backends.ErrNotFound) || alive(second.PID) {
		t.Errorf("got %v, %d alive: %v", err, second.PID, alive(second.PID))
	}
}

// TestStubborn: a server that does not listen to SIGTERM, or is stopped, is ended
// with all its children.
func TestStubborn(t *testing.T) {
	c, _, _ := serveHost(t, 0o600)
	must(t, c.Start(t.Context(), mounter.Server{ID: "v", Device: device(t), Run: sh(`trap "" TERM; sleep 77 & echo child $!; while :; do sleep 1; done`)}))
	var kid int
	until(t, "started", func() bool { n, _ := fmt.Sscanf(find(t, c, "v").Output, "child %d", &kid); return n == 1 })
	pid := find(t, c, "v").PID
	must(t, unix.Kill(pid, unix.SIGSTOP))
	must(t, c.Stop(t.Context(), "v"))
	until(t, "gone", func() bool { return !alive(pid) && !alive(kid) })
}

// TestOrphans: what a server leaves behind ends with it.
func TestOrphans(t *testing.T) {
	c, _, _ := serveHost(t, 0o600)
	must(t, c.Start(t.Context(), mounter.Server{ID: "v", Device: device(t), Run: sh(`setsid sleep 78 >/dev/null 2>&1 & sleep 77 >/dev/null 2>&1 & echo child $!; sleep 0.2`)}))
	var kid int
	until(t, "ended", func() bool {
		st := find(t, c, "v")
		n, _ := fmt.Sscanf(st.Output, "child %d", &kid)
		return n == 1 && st.State == mounter.ServerExited
	})
	until(t, "gone", func() bool { return !alive(kid) && len(marked(t)) == 0 })
}

// marked are the processes that come of servers of this process.
func marked(t testing.TB) (pids []string) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	must(t, err)
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), markName+"=") && strings.Contains(string(b), "TMPDIR="+os.Getenv("TMPDIR")) {
			pids = append(pids, f)
		}
	}
	return pids
}

// TestWatch: who watches is told of each end, also of those before.
func TestWatch(t *testing.T) {
	c, _, _ := serveHost(t, 0o600)
	dev := device(t)
	must(t, c.Start(t.Context(), mounter.Server{ID: "before", Device: dev, Run: sh("echo bye; exit 3")}))
	until(t, "ended", func() bool { return find(t, c, "before").State == mounter.ServerExited })
	ctx, stop := context.WithCancel(t.Context())
	news, done := make(chan mounter.ServerStatus, 9), make(chan error)
	go func() { done <- c.Watch(ctx, func(s mounter.ServerStatus) { news <- s }) }()
	if s := <-news; s.ID != "before" || s.Exit != "exit status 3" || s.Output != "bye" {
		t.Errorf("%+v", s)
	}
	must(t, c.Start(t.Context(), mounter.Server{ID: "v", Device: dev, Run: sh("exec sleep 60")}))
	must(t, unix.Kill(find(t, c, "v").PID, unix.SIGKILL))
	if s := <-news; s.ID != "v" || s.Exit != "signal: killed" {
		t.Errorf("%+v", s)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestRefuses: what cannot be run says why.
func TestRefuses(t *testing.T) {
	c, _, _ := serveHost(t, 0o600)
	dev, ctx := device(t), t.Context()
	null, err := os.Open("/dev/null")
	must(t, err)
	defer null.Close()
	secret := sh("exec sleep 60")
	secret.Args = append(secret.Args, "--password=canary-long")
	secret.Env = backends.NewSecrets(map[string]string{"P": "canary-long"})
	for name, tc := range map[string]struct {
		s    mounter.Server
		kind error
	}{
		"not FUSE":   {mounter.Server{ID: "v", Device: null, Run: sh("true")}, backends.ErrInvalid},
		"no file":    {mounter.Server{ID: "v", Run: sh("true")}, backends.ErrInvalid},
		"no ID":      {mounter.Server{Device: dev, Run: sh("true")}, backends.ErrInvalid},
		"no program": {mounter.Server{ID: "v", Device: dev, Run: &backends.FUSE{Path: "/nonexistent"}}, backends.ErrPrecondition},
		"relative":   {mounter.Server{ID: "v", Device: dev, Run: &backends.FUSE{Path: "sh"}}, backends.ErrInvalid},
		"file":       {mounter.Server{ID: "v", Device: dev, Run: &backends.FUSE{Path: "/bin/sh", Args: []string{"{file:a}"}}}, backends.ErrInvalid},
		"secret":     {mounter.Server{ID: "v", Device: dev, Run: secret}, backends.ErrInvalid},
	} {
		err := c.Start(ctx, tc.s)
		if !errors.Is(err, tc.kind) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, c.Stop(ctx, "v"))
	for i := range 4 {
		err = c.Start(ctx, mounter.Server{ID: fmt.Sprint(i), Device: dev, Run: sh("exec sleep 60")})
	}
	if !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("one too many: %v", err)
	}
}

// TestGarbage: a client that talks nonsense gets an error or an end, and keeps no
// descriptor here.
func TestGarbage(t *testing.T) {
	c, socket, _ := serveHost(t, 0o600)
	before := openFiles(t)
	for _, text := range []string{"", "\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x02{]", "\x00\x00\x00\x0b{\"op\":\"no\"}"} {
		conn, err := net.Dial("unix", socket)
		must(t, err)
		u := conn.(*net.UnixConn)
		fds := unix.UnixRights(int(device(t).Fd()), 0)
		if text != "" {
			_, _, err = u.WriteMsgUnix([]byte(text), fds, nil)
			must(t, err)
		}
		must(t, u.CloseWrite())
		if _, err := io.ReadAll(u); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		must(t, u.Close())
	}
	find(t, c, "v")
	until(t, "closed", func() bool { return openFiles(t) <= before+5 }) // five are this test's own
}

func openFiles(t testing.TB) int {
	names, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(names)
}

const envChild = "CSIKIT_TEST_FUSEHOST"

// child is a client of another user, or a host that is killed.
func child() {
	what, socket, _ := strings.Cut(os.Getenv(envChild), ":")
	switch what {
	case "client":
		_, err := NewClient(socket).Find(context.Background(), "v")
		fmt.Println(err)
	case "host":
		lis, err := net.Listen("unix", socket)
		if err == nil {
			err = New(nil).Serve(context.Background(), lis)
		}
		fmt.Println(err)
	default:
		return
	}
	os.Exit(0)
}

func startChild(t testing.TB, what string, uid uint32) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd, out := exec.Command(exe), &bytes.Buffer{}
	cmd.Env = append(os.Environ(), envChild+"="+what)
	cmd.Stdout = out
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	must(t, cmd.Start())
	return cmd, out
}

// TestOtherUser: the mode of the socket is not all that keeps others away.
func TestOtherUser(t *testing.T) {
	c, socket, log := serveHost(t, 0o666)
	for dir := filepath.Dir(socket); dir != "/var/tmp"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	exe, err := os.Executable()
	must(t, err)
	if err := os.Chmod(filepath.Dir(exe), 0o755); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(socket), "client")
	b, err := os.ReadFile(exe)
	must(t, err)
	must(t, os.WriteFile(copied, b, 0o755))
	out := &bytes.Buffer{}
	cmd := exec.Command(copied)
	cmd.Env, cmd.Dir, cmd.Stdout = []string{envChild + "=client:" + socket}, "/", out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	must(t, cmd.Run())
	if !strings.Contains(out.String(), "unavailable") || !strings.Contains(log.String(), "the peer is user 65534") {
		t.Errorf("got %s, log %s", out, log)
	}
	find(t, c, "v")
}

// TestHostKilled: no server outlives its host.
func TestHostKilled(t *testing.T) {
	testenv.Root(t)
	socket := filepath.Join(t.TempDir(), "s")
	cmd, _ := startChild(t, "host:"+socket, 0)
	c := NewClient(socket)
	until(t, "listening", func() bool { _, err := os.Lstat(socket); return err == nil })
	until(t, "serving", func() bool { _, err := c.Find(t.Context(), "v"); return err == nil })
	err := c.Start(t.Context(), mounter.Server{ID: "v", Device: device(t), Run: sh("exec sleep 60")})
	must(t, err)
	pid := find(t, c, "v").PID
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	until(t, "gone", func() bool { return !alive(pid) })
	if st := find(t, c, "v"); st.State != mounter.ServerUnknown {
		t.Errorf("%+v", st)
	}
	must(t, c.Stop(t.Context(), "v"))
}

// TestTail: a secret does not get through at the edge of what is kept.
func TestTail(t *testing.T) {
	for cut := range 40 {
		o := newTail(secretsOf(&backends.FUSE{Env: backends.NewSecrets(map[string]string{"S": "canary-one\ncanary-two"})}))
		_, _ = o.Write([]byte(strings.Repeat("x", cut) + " canary-one\n"))
		_, _ = o.Write(bytes.Repeat([]byte("y\n"), (maxKept-20)/2))
		_, _ = o.Write([]byte("canary-two end\n"))
		if s := o.String(); strings.Contains(s, "nary") || !strings.HasSuffix(s, "[redacted] end") || len(s) > maxShown+3 {
			t.Fatalf("%d: %q", cut, s)
		}
	}
}
