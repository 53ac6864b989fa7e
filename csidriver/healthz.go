package csidriver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a question about health; those of its time are patience's.
const (
	healthRequest = 8 << 10 // bytes of a request's head
	healthAtOnce  = 64      // connections that have not asked yet
)

// healthServer answers GET /healthz and /readyz. It is no net/http server, which
// would bring crypto/tls and HTTP/2 into each driver; one request a connection,
// as probes make them, is all that it knows.
type healthServer struct {
	driver *Driver
	lis    net.Listener // of CSI
	ctx    context.Context

	mu     sync.Mutex
	silent []net.Conn // have not asked yet, the oldest first
}

// serve answers on lis until it is closed.
func (h *healthServer) serve(lis net.Listener) {
	for {
		conn, err := lis.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, mostly
			time.Sleep(100 * time.Millisecond)
			continue
		}
		h.enter(conn)
		go h.answer(conn)
	}
}

// enter takes in a connection. The address may be open to a whole network: of too
// many that say nothing the oldest goes, so that none of them keeps kubelet from its
// answer. Kubelet asks as soon as it is connected.
func (h *healthServer) enter(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.silent) >= healthAtOnce {
		_ = h.silent[0].Close() // its goroutine ends with that
		h.silent = slices.Delete(h.silent, 0, 1)
	}
	h.silent = append(h.silent, conn)
}

// asked: conn has said what it wants, or ends.
func (h *healthServer) asked(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = slices.DeleteFunc(h.silent, func(c net.Conn) bool { return c == conn })
}

func (h *healthServer) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }() // the answer was sent, or the asker is gone
	defer h.asked(conn)
	if conn.SetDeadline(time.Now().Add(h.driver.server.patience.exchange)) != nil {
		return
	}
	// A text of one's own: nothing of what was sent comes back.
	status, body := "400 Bad Request", "want GET /healthz or GET /readyz"
	line, head := "", textproto.NewReader(bufio.NewReader(io.LimitReader(conn, healthRequest)))
	line, err := head.ReadLine()
	if err == nil {
		_, err = head.ReadMIMEHeader() // a connection closed with unread data would be reset
	}
	h.asked(conn)
	method, path, ok := request(line)
	if err == nil && ok {
		status, body = h.look(method, path)
	}
	length := len(body) + 1
	if method == "HEAD" {
		body = ""
	} else {
		body += "\n"
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"+
		"Cache-Control: no-store\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, length, body) // the asker may be gone
}

// request takes the first line of an HTTP/1 request apart.
func request(line string) (method, path string, ok bool) {
	method, rest, ok := strings.Cut(line, " ")
	path, version, ok2 := strings.Cut(rest, " ")
	path, _, _ = strings.Cut(path, "?")
	return method, path, ok && ok2 && strings.HasPrefix(version, "HTTP/1.")
}

func (h *healthServer) look(method, path string) (status, body string) {
	if method != "GET" && method != "HEAD" {
		return "405 Method Not Allowed", "only GET and HEAD"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), h.driver.server.patience.health)
	defer cancel()
	var err error
	switch path {
	case "/healthz":
		body, err = h.alive(ctx)
	case "/readyz":
		body, err = h.ready(ctx)
	default:
		return "404 Not Found", "there are /healthz and /readyz"
	}
	if err != nil {
		return "503 Service Unavailable", clip(err.Error(), maxMessageText)
	}
	return "200 OK", body
}

// alive is an error when only a restart can help: the driver says that it is not
// healthy, or nobody can reach it any more. A driver that still recovers, whose
// storage is away or slow, or that drains, is alive.
func (h *healthServer) alive(ctx context.Context) (string, error) {
	if h.stopping() {
		return "ok: stopping", nil
	}
	if err := own(h.lis); err != nil {
		return "", fmt.Errorf("nobody can reach the driver: %w", err)
	}
	ready, err := h.driver.health.ask(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return "ok: " + err.Error(), nil //nolint:nilerr // a slow backend is no dead driver
	case err != nil:
		return "", err
	case !ready && !h.driver.ready.Load():
		return "ok: starting, what an earlier process left is being recovered", nil
	case !ready:
		return "ok: the storage is not ready", nil
	}
	return "ok", nil
}

func (h *healthServer) stopping() bool { return h.ctx.Err() != nil }

// ready is an error while calls that need the storage would not be served.
func (h *healthServer) ready(ctx context.Context) (string, error) {
	if h.stopping() {
		return "", errors.New("stopping")
	}
	if err := own(h.lis); err != nil {
		return "", err
	}
	ready, err := h.driver.health.ask(ctx)
	switch {
	case err != nil:
		return "", err
	case !ready && !h.driver.ready.Load():
		return "", errors.New("starting")
	case !ready:
		return "", errors.New("the storage is not ready")
	}
	if err := h.driver.registered(); err != nil {
		return "", err
	}
	return "ok", nil
}

// startHealth listens at Options.HealthAddress and answers until stop is called.
func (d *Driver) startHealth(ctx context.Context, csi net.Listener) (stop func(), err error) {
	if d.opts.HealthAddress == "" {
		return func() {}, nil
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", d.opts.HealthAddress)
	if err != nil {
		return nil, fmt.Errorf("csidriver: Options.HealthAddress: %w", err)
	}
	d.logger.InfoContext(ctx, "answering /healthz and /readyz", slog.String("address", lis.Addr().String()))
	h := &healthServer{driver: d, lis: csi, ctx: ctx}
	done := make(chan struct{})
	go func() { defer close(done); h.serve(lis) }()
	return func() {
		_ = lis.Close() // nothing is left behind by it
		<-done
	}, nil
}

// startRegistration keeps the driver registered with kubelet until stop is called
// or ctx ends.
func (d *Driver) startRegistration(ctx context.Context, lis net.Listener) (stop func(), err error) {
	if d.opts.KubeletRegistry == "" {
		return func() {}, nil
	}
	r, err := newRegistration(d, lis)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	return func() {
		cancel()
		within(done, d.server.patience.stop) // it may be waiting for a directory that hangs
	}, nil
}
