package fusehost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// requestWait bounds how long a peer may take to say what it wants.
const requestWait = 10 * time.Second

// Serve answers clients on a listener of a Unix socket until ctx ends. Then all
// servers are ended, and at last the listener is closed: as long as one may run,
// nobody finds the socket dead.
func (h *Host) Serve(ctx context.Context, lis net.Listener) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	context.AfterFunc(inner, func() { done <- errors.Join(h.Close(), lis.Close()) })
	var conns sync.WaitGroup
	for {
		conn, err := lis.Accept()
		if err != nil {
			stopped := ctx.Err() != nil
			cancel()
			end := <-done
			conns.Wait()
			if stopped {
				return end
			}
			return errors.Join(err, end)
		}
		conns.Go(func() { h.talk(inner, conn) })
	}
}

// talk answers one request.
func (h *Host) talk(ctx context.Context, conn net.Conn) {
	defer conn.Close() //nolint:errcheck // all was written, or nobody is there
	err := h.answer(ctx, conn)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		h.log.DebugContext(ctx, "client", "err", err)
	}
}

func (h *Host) answer(ctx context.Context, conn net.Conn) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%T is no connection of a Unix socket", conn)
	}
	if err := checkPeer(c); err != nil {
		h.log.WarnContext(ctx, "client refused", "err", err)
		return err
	}
	if err := c.SetDeadline(time.Now().Add(requestWait)); err != nil {
		return err
	}
	head, dev, err := receiveHead(c)
	if dev != nil {
		defer dev.Close() //nolint:errcheck // the server has its own
	}
	if err != nil {
		return err
	}
	var req request
	if err := decodeBody(c, head, &req); err != nil {
		return send(c, errorReply(fmt.Errorf("%w: request: %w", backends.ErrInvalid, err)))
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if req.Op == opWatch {
		return h.serveWatch(ctx, c)
	}
	rep := reply{}
	if err := h.do(ctx, req, dev, &rep); err != nil {
		rep = errorReply(err)
	}
	return send(c, rep)
}

// do is one call. It is not cut short when the client goes.
func (h *Host) do(ctx context.Context, req request, dev *os.File, rep *reply) error {
	ctx = context.WithoutCancel(ctx)
	switch req.Op {
	case opStart:
		return h.Start(ctx, mounter.Server{ID: req.ID, Device: dev, Run: req.Run.run()})
	case opFind:
		st, err := h.Find(ctx, req.ID)
		rep.Status = &st
		return err
	case opStop:
		return h.Stop(ctx, req.ID)
	}
	return fmt.Errorf("%w: request %q", backends.ErrUnsupported, req.Op)
}

// serveWatch tells a client of servers that end for as long as it is there.
func (h *Host) serveWatch(ctx context.Context, c *net.UnixConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = c.Read(make([]byte, 1)) // nothing comes but the end
	}()
	// A client that waits for long knows by this that it is heard.
	if err := send(c, reply{}); err != nil {
		return err
	}
	return h.Watch(ctx, func(st mounter.ServerStatus) {
		err := c.SetWriteDeadline(time.Now().Add(requestWait))
		if err == nil {
			err = send(c, reply{Status: &st})
		}
		if err != nil {
			cancel()
		}
	})
}
