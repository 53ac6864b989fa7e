package nfs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

const server = "nfs1:2049"

// TestBreaker: one call at a time tries a dead server, and not too often; what it
// gets from the server is an answer, also an error.
func TestBreaker(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		var asked int
		var silent error
		bs := newBreakers()
		bs.ping = func(context.Context, string) error { asked++; return silent }
		enter := func() (*trial, error) { return bs.enter(t.Context(), server) }
		if w, err := enter(); err != nil || w.alone || asked > 0 {
			t.Fatalf("a server of which nothing is known: %v", err)
		}
		bs.fail(server, errors.New("hangs"))
		if _, err := enter(); !errors.Is(err, backends.ErrUnavailable) || asked > 0 {
			t.Errorf("at once after it: %v, asked %d times", err, asked)
		}
		silent = errNoServer
		for i := range 5 { // a silent server is asked again and again, at the same distance
			time.Sleep(firstPause)
			if _, err := enter(); !errors.Is(err, backends.ErrUnavailable) || asked != i+1 {
				t.Errorf("after %s: %v, asked %d times", firstPause, err, asked)
			}
		}
		silent = nil
		time.Sleep(firstPause)
		way, err := enter()
		if err != nil || !way.alone {
			t.Fatalf("a server that answers again: %v", err)
		}
		if _, err := enter(); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("beside the trial: %v", err)
		}
		bs.fail(server, errors.New("hangs still")) // it answers questions and no calls
		way.leave(backends.ErrUnavailable)
		time.Sleep(firstPause)
		if _, err := enter(); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("as soon as before: %v", err)
		}
		time.Sleep(firstPause)
		if way, err = enter(); err != nil {
			t.Fatal(err)
		}
		way.leave((&wireError{Text: "no such file", Errno: syscall.ENOENT, Kinds: []string{backends.ErrUnavailable.Error()}}).decode())
		if w, err := enter(); err != nil || w.alone {
			t.Errorf("an error of the server is an answer: %v", err)
		}
	})
}

// TestBreakerLeft: a caller that goes while it tries the server leaves the place to the next.
func TestBreakerLeft(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		bs := newBreakers()
		bs.ping = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		bs.fail(server, errors.New("hangs"))
		time.Sleep(firstPause)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := bs.enter(ctx, server); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		bs.ping = func(context.Context, string) error { return nil }
		if w, err := bs.enter(t.Context(), server); err != nil || !w.alone {
			t.Errorf("the next: %v", err)
		}
	})
}

// TestPing: whatever speaks RPC lives; what is silent, closed or something else does not.
func TestPing(t *testing.T) {
	for name, tc := range map[string]struct {
		serve func(net.Conn)
		alive bool
	}{
		"reply": {func(c net.Conn) {
			b := make([]byte, 44)
			if n, _ := c.Read(b); n == 44 {
				_, _ = c.Write(append([]byte{0x80, 0, 0, 24, b[4], b[5], b[6], b[7], 0, 0, 0, 1}, make([]byte, 16)...))
			}
		}, true},
		"another answer": {func(c net.Conn) { _, _ = fmt.Fprint(c, "SSH-2.0-something\r\n") }, false},
		"closed":         {func(net.Conn) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if c, err := l.Accept(); err == nil {
					tc.serve(c)
					_ = c.Close()
				}
			}()
			if err := ping(t.Context(), l.Addr().String()); (err == nil) != tc.alive || err != nil && !errors.Is(err, errNoServer) {
				t.Error(err)
			}
			_ = l.Close()
		})
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := ping(ctx, l.Addr().String()); !errors.Is(err, errNoServer) {
		t.Errorf("silent: %v", err)
	}
}
