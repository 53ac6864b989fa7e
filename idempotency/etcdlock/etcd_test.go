package etcdlock

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcd is a real one, with data of its own.
type etcd struct {
	t       *testing.T
	dir     string
	client  string // addresses
	peer    string
	process *exec.Cmd
	ended   chan struct{}
}

// startEtcd skips the test where there is no etcd, and fails it where
// CSIKIT_REQUIRE says that there are tools.
func startEtcd(t *testing.T) *etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if slices.Contains(strings.Split(os.Getenv("CSIKIT_REQUIRE"), ","), "tools") {
			t.Fatal("missing: program etcd, and CSIKIT_REQUIRE requires tools")
		}
		t.Skip("missing: program etcd")
	}
	// The ports are free a moment before they are used: another try, then.
	for range 5 {
		e := &etcd{t: t, dir: filepath.Join(t.TempDir(), "etcd"), client: freePort(t), peer: freePort(t)}
		if e.start() {
			t.Cleanup(e.kill)
			return e
		}
	}
	t.Fatal("etcd does not start")
	return nil
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start says whether etcd serves.
func (e *etcd) start() bool {
	e.t.Helper()
	e.process = exec.Command("etcd", "--data-dir", e.dir, "--name", "test",
		"--listen-client-urls", "http://"+e.client, "--advertise-client-urls", "http://"+e.client,
		"--listen-peer-urls", "http://"+e.peer, "--initial-advertise-peer-urls", "http://"+e.peer,
		"--initial-cluster", "test=http://"+e.peer, "--heartbeat-interval", "100", "--election-timeout", "500")
	e.process.SysProcAttr = dieWithTest()
	if err := e.process.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.ended = make(chan struct{})
	p, ended := e.process, e.ended
	go func() { _ = p.Wait(); close(ended) }()
	c := e.dial(e.client)
	for {
		ctx, cancel := context.WithTimeout(e.t.Context(), time.Second)
		_, err := c.Get(ctx, "x")
		cancel()
		select {
		case <-ended:
			return false
		default:
		}
		if err == nil {
			return true
		}
	}
}

// kill is kill -9.
func (e *etcd) kill() {
	_ = e.process.Process.Kill()
	<-e.ended
}

func (e *etcd) dial(address string) *clientv3.Client {
	e.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{address}, Logger: zap.NewNop(), DialKeepAliveTime: time.Second, DialKeepAliveTimeout: time.Second,
	})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	return c
}

// ttl is what the tests use: lost after 2 s, somebody else's after 3.
const ttl = 3 * time.Second

// locker is a replica, whose etcd has the given address.
func (e *etcd) locker(address string) *Locker {
	e.t.Helper()
	return e.lockerFor(address, ttl)
}

func (e *etcd) lockerFor(address string, ttl time.Duration) *Locker {
	e.t.Helper()
	l := New(e.dial(address), &Options{Prefix: "/test/", TTL: ttl})
	e.t.Cleanup(func() { _ = l.Close() })
	return l
}

// wantKeys waits until there are so many keys of locks.
func (e *etcd) wantKeys(n int64) {
	e.t.Helper()
	c := e.dial(e.client)
	var got int64
	for range 200 {
		r, err := c.Get(e.t.Context(), "/test/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			e.t.Fatal(err)
		}
		if got = r.Count; got == n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	e.t.Fatalf("%d keys; want %d", got, n)
}

// proxy is a network between a replica and etcd that can be cut: nothing comes
// through and nothing is refused, as when a cable is pulled.
type proxy struct {
	address string
	mu      sync.Mutex
	open    *sync.Cond
	cut     bool
	closed  bool
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: lis.Addr().String()}
	p.open = sync.NewCond(&p.mu)
	t.Cleanup(func() { _ = lis.Close(); p.set(false, true) })
	go func() {
		for {
			a, err := lis.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			go p.pipe(a, b)
			go p.pipe(b, a)
		}
	}()
	return p
}

func (p *proxy) pipe(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	_, _ = io.Copy(gate{to, p}, from)
}

// gate holds back what is written while the network is cut.
type gate struct {
	net.Conn
	p *proxy
}

func (g gate) Write(b []byte) (int, error) {
	g.p.mu.Lock()
	for g.p.cut && !g.p.closed {
		g.p.open.Wait()
	}
	g.p.mu.Unlock()
	return g.Conn.Write(b)
}

// ReadFrom hides that of the connection, which would pass by the gate.
func (g gate) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{g}, r)
}

func (p *proxy) set(cut, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.closed = cut, closed
	p.open.Broadcast()
}

func mustLock(t *testing.T, l *Locker, key string) Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	k, err := l.Lock(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustUnlock(t *testing.T, k Lease) {
	t.Helper()
	if err := k.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func isLost(k Lease) bool {
	select {
	case <-k.Lost():
		return true
	default:
		return false
	}
}

// mustLose waits until the lease is lost.
func mustLose(t *testing.T, k Lease) {
	t.Helper()
	select {
	case <-k.Lost():
	case <-time.After(30 * time.Second):
		t.Fatal("not lost")
	}
}

// outcome is what a Lock gave that another goroutine waited for.
type outcome struct {
	name  string
	lease Lease
	err   error
}

func goLock(ctx context.Context, l *Locker, name, key string, to chan<- outcome) {
	go func() {
		k, err := l.Lock(ctx, key)
		to <- outcome{name, k, err}
	}()
}

func wantNone(t *testing.T, from <-chan outcome) {
	t.Helper()
	select {
	case o := <-from:
		t.Fatalf("%s has the lock of somebody else: %v", o.name, o.err)
	case <-time.After(200 * time.Millisecond): // too short proves less, and breaks nothing
	}
}

func want(t *testing.T, from <-chan outcome, name string) Lease {
	t.Helper()
	select {
	case o := <-from:
		if o.err != nil || o.name != name {
			t.Fatalf("%s, %v; want %s to have the lock", o.name, o.err, name)
		}
		return o.lease
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not get the lock", name)
	}
	return nil
}
