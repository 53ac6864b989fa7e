package etcdtest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy is a network between a replica and etcd that can be cut: nothing comes
// through and nothing is refused, as when a cable is pulled.
type Proxy struct {
	Address string

	mu     sync.Mutex
	open   *sync.Cond
	cut    bool
	closed bool
}

// NewProxy makes a network to an address.
func NewProxy(t *testing.T, to string) *Proxy {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Address: lis.Addr().String()}
	p.open = sync.NewCond(&p.mu)
	t.Cleanup(func() { _ = lis.Close(); p.set(false, true) })
	go func() {
		for {
			a, err := lis.Accept()
			if err != nil {
				return
			}
			b, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", to)
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

// Cut cuts the network.
func (p *Proxy) Cut() { p.set(true, false) }

// Heal lets everything through that was held back.
func (p *Proxy) Heal() { p.set(false, false) }

func (p *Proxy) pipe(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	_, _ = io.Copy(gate{to, p}, from)
}

// gate holds back what is written while the network is cut.
type gate struct {
	net.Conn
	p *Proxy
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

func (p *Proxy) set(cut, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.closed = cut, closed
	p.open.Broadcast()
}
