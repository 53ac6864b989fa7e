// Package etcdtest runs a real etcd for tests, and a network to it that can be cut.
package etcdtest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Etcd is a server with data of its own.
type Etcd struct {
	Address string // for clients

	t       *testing.T
	dir     string
	peer    string
	process *exec.Cmd
	ended   chan struct{}
}

// Start skips the test where there is no etcd, and fails it where CSIKIT_REQUIRE
// says that there are tools.
func Start(t *testing.T) *Etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if slices.Contains(strings.Split(os.Getenv("CSIKIT_REQUIRE"), ","), "tools") {
			t.Fatal("missing: program etcd, and CSIKIT_REQUIRE requires tools")
		}
		t.Skip("missing: program etcd")
	}
	// The ports are free a moment before they are used: another try, then.
	for range 5 {
		e := &Etcd{t: t, dir: filepath.Join(t.TempDir(), "etcd"), Address: freePort(t), peer: freePort(t)}
		if e.Run() {
			t.Cleanup(e.Kill)
			return e
		}
	}
	t.Fatal("etcd does not start")
	return nil
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Run starts it (again) and says whether it serves.
func (e *Etcd) Run() bool {
	e.t.Helper()
	e.process = exec.CommandContext(context.Background(), "etcd", "--data-dir", e.dir, "--name", "test",
		"--listen-client-urls", "http://"+e.Address, "--advertise-client-urls", "http://"+e.Address,
		"--listen-peer-urls", "http://"+e.peer, "--initial-advertise-peer-urls", "http://"+e.peer,
		"--initial-cluster", "test=http://"+e.peer, "--heartbeat-interval", "100", "--election-timeout", "500")
	e.process.SysProcAttr = dieWithTest()
	if err := e.process.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.ended = make(chan struct{})
	p, ended := e.process, e.ended
	go func() { _ = p.Wait(); close(ended) }()
	c := e.Dial(e.Address)
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

// Kill is kill -9.
func (e *Etcd) Kill() {
	_ = e.process.Process.Kill()
	<-e.ended
}

// Dial gives a client of the server at an address: its own, or that of a [Proxy].
func (e *Etcd) Dial(address string) *clientv3.Client {
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

// WantKeys waits until there are so many keys with a prefix.
func (e *Etcd) WantKeys(prefix string, n int64) {
	e.t.Helper()
	c := e.Dial(e.Address)
	var got int64
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var r *clientv3.GetResponse
		if r, err = c.Get(e.t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil {
			continue // a disk that is slow for a moment
		}
		if got = r.Count; got == n {
			return
		}
	}
	e.t.Fatalf("%d keys, %v; want %d", got, err, n)
}
