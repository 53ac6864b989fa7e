package csidriver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"
)

func TestParseEndpoint(t *testing.T) {
	tests := []struct {
		in   string
		want endpoint // zero: refused
	}{
		{"unix:///run/csi/csi.sock", endpoint{"unix", "/run/csi/csi.sock"}},
		{"unix:/run/csi/csi.sock", endpoint{"unix", "/run/csi/csi.sock"}},
		{"/run/csi/csi.sock", endpoint{"unix", "/run/csi/csi.sock"}},
		{"UNIX:///run/csi.sock", endpoint{"unix", "/run/csi.sock"}},
		{"unix:///run//csi/../driver", endpoint{"unix", "/run/driver"}},
		{"tcp://127.0.0.1:10000", endpoint{"tcp", "127.0.0.1:10000"}},
		{"tcp://[::1]:10000", endpoint{"tcp", "[::1]:10000"}},
		{"tcp://:10000", endpoint{"tcp", ":10000"}},
		{"", endpoint{}},
		{"unix://run/csi.sock", endpoint{}},
		{"unix:csi.sock", endpoint{}},
		{"unix:@csi", endpoint{}},
		{"unix:///run/csi/", endpoint{}},
		{"unix:///run/\x00csi", endpoint{}},
		{"csi.sock", endpoint{}},
		{"tcp://host", endpoint{}},
		{"tcp://host:", endpoint{}},
		{"http://host:80", endpoint{}},
	}
	for _, tt := range tests {
		got, err := parseEndpoint(tt.in)
		if got != tt.want || (err != nil) != (tt.want == endpoint{}) {
			t.Errorf("parseEndpoint(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
}

// TestSocketMode: the socket has its bits whatever the umask is.
func TestSocketMode(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o777} {
		for _, mode := range []fs.FileMode{0, 0o600, 0o660, 0o666} {
			path := filepath.Join(t.TempDir(), "csi.sock")
			old := syscall.Umask(umask)
			lis, err := Listen(path, mode)
			syscall.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			want := mode
			if want == 0 {
				want = 0o600
			}
			if got := mustStat(t, path).Mode().Perm(); got != want {
				t.Errorf("umask %o, mode %o: socket has %o", umask, mode, got)
			}
			closeListener(t, lis)
		}
	}
	if _, err := Listen(filepath.Join(t.TempDir(), "csi.sock"), fs.ModeSetuid|0o600); err == nil {
		t.Error("a setuid socket was made")
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Run("live", func(t *testing.T) {
		path := filepath.Join(dir, "live.sock")
		first := mustListen(t, path)
		_, err := Listen(path, 0)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another driver serves here") {
			t.Errorf("second starter: %v", err)
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("the first one's socket is gone: %v", err)
		} else if err := c.Close(); err != nil {
			t.Error(err)
		}
		closeListener(t, first)
	})
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(dir, "data")
		if err := os.WriteFile(path, []byte("user data"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path, 0); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("on a file: %v", err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "user data" {
			t.Errorf("the file: %q, %v", b, err)
		}
	})
	t.Run("symlink", func(t *testing.T) {
		path := filepath.Join(dir, "link")
		if err := os.Symlink(filepath.Join(dir, "nothing"), path); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path, 0); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("on a symlink: %v", err)
		}
	})
	t.Run("another kind of socket", func(t *testing.T) {
		path := filepath.Join(dir, "datagram.sock")
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path, 0); err == nil || !strings.Contains(err.Error(), "cannot tell") {
			t.Errorf("on a datagram socket: %v", err)
		}
		mustStat(t, path)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("directory missing", func(t *testing.T) {
		_, err := Listen(filepath.Join(dir, "none", "csi.sock"), 0)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "directory of the socket must exist") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("name too long", func(t *testing.T) {
		if _, err := Listen(filepath.Join(dir, strings.Repeat("s", 200)), 0); err == nil {
			t.Error("a socket with 200 bytes of name was made")
		}
	})
}

// TestListenWaitsForLock: no starter looks at the socket while another one does.
func TestListenWaitsForLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "csi.sock")
	stale := mustListen(t, path)
	if err := stale.(*unixListener).UnixListener.Close(); err != nil {
		t.Fatal(err)
	}
	before := mustStat(t, path)
	dir, err := openLocked(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan net.Listener, 1)
	go func() {
		lis, err := Listen(path, 0)
		if err != nil {
			t.Error(err)
		}
		started <- lis
	}()
	select { // a wait that can only miss the error, not make one
	case <-started:
		t.Error("went past the lock")
	case <-time.After(50 * time.Millisecond):
	}
	if !os.SameFile(before, mustStat(t, path)) {
		t.Error("the stale socket was replaced under the lock of another")
	}
	second, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := lock(second, 0); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("lock: %v", err)
	}
	if err := errors.Join(second.Close(), dir.Close()); err != nil {
		t.Fatal(err)
	}
	closeListener(t, <-started)
}

// TestListenNothingBeside: PR-10, no file but the socket.
func TestListenNothingBeside(t *testing.T) {
	dir := t.TempDir()
	lis := mustListen(t, filepath.Join(dir, "csi.sock"))
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("beside the socket: %v", got)
	}
	closeListener(t, lis)
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestListenLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "csi.sock")
	for range 2 { // the second one meets a stale socket
		lis := mustListen(t, path)
		if got := lis.Addr().String(); got != path {
			t.Errorf("address %s", got)
		}
		if _, err := Listen(path, 0); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second starter: %v", err)
		}
		if err := lis.(*unixListener).UnixListener.Close(); err != nil { // as a kill does: the socket stays
			t.Fatal(err)
		}
	}
	closeListener(t, mustListen(t, path))
}

// TestCloseLeavesSuccessor: a socket that another driver made meanwhile stays.
func TestCloseLeavesSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "csi.sock")
	first := mustListen(t, path)
	if err := os.Remove(path); err != nil { // somebody cleaned up
		t.Fatal(err)
	}
	second := mustListen(t, path)
	closeListener(t, first)
	mustStat(t, path)
	closeListener(t, second)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second one's socket: %v", err)
	}
}

const childEnv = "CSIDRIVER_TEST_LISTEN"

// TestChildListens is the other process of the tests below.
func TestChildListens(t *testing.T) {
	path := os.Getenv(childEnv)
	if path == "" {
		return // not called by one
	}
	lis, err := Listen(path, 0)
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("listening")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the parent says so or is gone
	closeListener(t, lis)
}

// child starts a process that listens, and gives what it said first.
func child(t *testing.T, path string) (cmd *exec.Cmd, said func() string) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", "-test.run=^TestChildListens$")
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // ends it
		_ = cmd.Wait() // may have been killed
	})
	return cmd, func() string {
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Errorf("child said %q: %v", line, err)
		}
		return strings.TrimSpace(line)
	}
}

func TestKilledDriverLeavesNoObstacle(t *testing.T) {
	needProc(t)
	path := filepath.Join(t.TempDir(), "csi.sock")
	cmd, said := child(t, path)
	if s := said(); s != "listening" {
		t.Fatal(s)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	mustStat(t, path)
	closeListener(t, mustListen(t, path))
}

// TestStartersRace: of processes that start at once beside a stale socket, one
// serves and the others say why not.
func TestStartersRace(t *testing.T) {
	needProc(t)
	path := filepath.Join(t.TempDir(), "csi.sock")
	lis := mustListen(t, path)
	if err := lis.(*unixListener).UnixListener.Close(); err != nil {
		t.Fatal(err)
	}
	var said []func() string
	for range 6 {
		_, s := child(t, path)
		said = append(said, s)
	}
	won := 0
	for _, s := range said {
		switch line := s(); {
		case line == "listening":
			won++
		case !strings.Contains(line, "another driver serves here"):
			t.Errorf("a loser said %q", line)
		}
	}
	if won != 1 {
		t.Errorf("%d drivers serve one socket", won)
	}
}

func TestTCPNeedsTLS(t *testing.T) {
	s := NewServer(nil, new(fakeServices).register)
	if err := s.Run(t.Context(), "tcp://127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("Run: %v", err)
	}
	lis, err := Listen("tcp://127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), lis); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("Serve: %v", err)
	}
	if _, err := lis.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the refused listener is open: %v", err)
	}
	if lis, err = Listen("tcp://127.0.0.1:0", 0); err != nil {
		t.Fatal(err)
	}
	stop := serve(t, NewServer(&ServerOptions{InsecureTCP: true}, new(fakeServices).register), lis)
	if err := probe(t, connect(t, lis.Addr().String(), insecure.NewCredentials())); err != nil {
		t.Errorf("InsecureTCP: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestRunTakesEndpointFromEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "csi.sock")
	t.Setenv(EndpointEnv, "unix://"+path)
	s := NewServer(&ServerOptions{SocketMode: 0o660}, new(fakeServices).register)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, "") }()
	conn := connect(t, "unix://"+path, insecure.NewCredentials())
	conn.Connect()
	if err := probeReady(t, conn); err != nil {
		t.Error(err)
	}
	if got := mustStat(t, path).Mode().Perm(); got != 0o660 {
		t.Errorf("mode %o", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}
}

func needProc(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Skip("missing: /proc/self/exe")
	}
}

func mustListen(t *testing.T, path string) net.Listener {
	t.Helper()
	lis, err := Listen(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func closeListener(t *testing.T, lis net.Listener) {
	t.Helper()
	if err := lis.Close(); err != nil {
		t.Error(err)
	}
}

func mustStat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var n []string
	for _, e := range entries {
		n = append(n, e.Name())
	}
	return n
}
