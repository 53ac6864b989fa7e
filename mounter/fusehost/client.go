package fusehost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// Client reaches a [Host] in another process. Each call is a connection of its own.
type Client struct{ path string }

var (
	_ mounter.ServerHost    = (*Client)(nil)
	_ mounter.ServerWatcher = (*Client)(nil)
)

// NewClient is a client of the host that listens at path. It need not be there yet.
func NewClient(path string) *Client { return &Client{path} }

const dialWait = 5 * time.Second

// Start implements [mounter.ServerHost].
func (c *Client) Start(ctx context.Context, s mounter.Server) error {
	if s.Device == nil {
		return fmt.Errorf("%w: a server without a descriptor", backends.ErrInvalid)
	}
	_, err := c.call(ctx, request{Op: opStart, ID: s.ID, Run: toWire(s.Run)}, s.Device)
	return err
}

// Find implements [mounter.ServerHost]. Where nobody listens at the socket, no
// server runs: they die with their host.
func (c *Client) Find(ctx context.Context, id string) (mounter.ServerStatus, error) {
	unknown := mounter.ServerStatus{ID: id, State: mounter.ServerUnknown}
	rep, err := c.call(ctx, request{Op: opFind, ID: id}, nil)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return unknown, nil
	case err != nil || rep.Status == nil:
		return unknown, err
	}
	return *rep.Status, nil
}

// Stop implements [mounter.ServerHost].
func (c *Client) Stop(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{Op: opStop, ID: id}, nil)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// Watch implements [mounter.ServerWatcher].
func (c *Client) Watch(ctx context.Context, ended func(mounter.ServerStatus)) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is written any more
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := send(conn, request{Op: opWatch}); err != nil {
		return err
	}
	for {
		var rep reply
		if err := receive(conn, &rep); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		if err := rep.err(""); err != nil {
			return err
		}
		if rep.Status != nil {
			ended(*rep.Status)
		}
	}
}

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, fmt.Errorf("%w: host of FUSE servers: %w", backends.ErrUnavailable, err)
	}
	u := conn.(*net.UnixConn)
	// It is about to get secrets.
	if err := checkPeer(u); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: host of FUSE servers: %w", backends.ErrUnavailable, err), u.Close())
	}
	return u, nil
}

func (c *Client) call(ctx context.Context, req request, dev *os.File) (reply, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close() //nolint:errcheck // the answer is there, or it never comes
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	head, body, err := encode(req)
	if err != nil {
		return reply{}, err
	}
	var rep reply
	if err = sendHead(conn, head, dev); err == nil {
		_, err = conn.Write(body)
	}
	if err == nil {
		err = receive(conn, &rep)
	}
	if err != nil {
		return rep, fmt.Errorf("%w: host of FUSE servers: %w", backends.ErrUnavailable, errors.Join(ctx.Err(), err))
	}
	return rep, rep.err(req.ID)
}
