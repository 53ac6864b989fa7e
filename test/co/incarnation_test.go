package co

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/csikit/csikit/csidriver"
)

// restart ends a process, by SIGTERM or by SIGKILL, and starts the next one.
func (w *world) restart(p *incarnation, kill bool) {
	w.mu.Lock()
	if w.procs[p.role] != p || w.restarts[p.role] || w.over {
		w.mu.Unlock()
		return // somebody else does
	}
	w.restarts[p.role] = true
	w.mu.Unlock()
	if kill {
		close(p.dead)
		p.cut()
	}
	w.note("        process %d ends, killed %v", p.role, kill)
	w.wg.Go(func() {
		err := p.end() // names what it cut
		if !kill {
			w.note("        process %d has ended: %v", p.role, err)
			close(p.dead)
			p.cut()
		}
		w.connectionLost()
		w.sleep(time.Second)
		w.start(p.role)
		w.mu.Lock()
		w.restarts[p.role] = false
		w.mu.Unlock()
	})
}

// dialer finds the process that serves role now.
func (w *world) dialer(role csidriver.Services) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		w.mu.Lock()
		p := w.procs[role]
		w.mu.Unlock()
		select {
		case <-p.dead:
			return nil, errors.New("connection refused")
		default:
		}
		c, err := p.connect(ctx)
		if err == nil {
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
		}
		return c, err
	}
}

// cut closes all connections.
func (p *incarnation) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close() // it may be closed already
	}
	p.conns = nil
}

// connectionLost tells the sidecars, which exit and start again. They remember
// nothing but the API's objects (csi-lib-utils v0.25 connection/connection.go
// ExitOnConnectionLoss).
func (w *world) connectionLost() {
	w.mu.Lock()
	lost := slices.Clone(w.lost)
	w.mu.Unlock()
	for _, f := range lost {
		f()
	}
}
