package model

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// listener is a socket in memory, so that waiting for it is waiting in the bubble.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newListener() *listener {
	l := &listener{conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.done) })
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.close(); return nil }
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "model", Net: "unix"} }

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// client is a CO with a connection to whatever process serves now.
type client struct {
	*grpc.ClientConn

	mu    sync.Mutex
	conns []net.Conn
}

func (w *world) newClient() (*client, error) {
	c := &client{}
	conn, err := grpc.NewClient("passthrough:///model",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond}}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			p := w.serving()
			if p == nil {
				return nil, net.ErrClosed
			}
			conn, err := p.lis.dial(ctx)
			if err != nil {
				return nil, err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.conns = append(c.conns, conn)
			return conn, nil
		}))
	c.ClientConn = conn
	return c, err
}

// cut breaks the connection: the answers of what runs are lost.
func (c *client) cut() {
	c.mu.Lock()
	conns := slices.Clone(c.conns)
	c.conns = nil
	c.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // a pipe
	}
}
