package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// The whole group ends, also what ignores SIGTERM, before Run returns.
func TestCancelEndsTheGroup(t *testing.T) {
	tool := script(t, `
sh -c 'trap "" TERM; echo $$ >"$0.child"; while :; do sleep 1000; done' "$0" &
wait`)
	why := fmt.Errorf("the operation stalled: %w", context.DeadlineExceeded)
	ctx, cancel := context.WithCancelCause(t.Context())
	errc := make(chan error, 1)
	go func() {
		_, err := New(&Options{Grace: 50 * time.Millisecond}).Run(ctx, Cmd{Path: tool})
		errc <- err
	}()
	pid := atoi(t, readLine(t, tool+".child"))
	cancel(why)
	err := <-errc
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Signal == "" || !errors.Is(err, why) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if alive(pid) {
		t.Errorf("pid %d of the group is alive", pid)
	}
}

func TestHungToolIsEnded(t *testing.T) {
	tool := script(t, `exec sleep 1000`)
	_, err := New(nil).Run(t.Context(), Cmd{Path: tool, Idle: 50 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_, err = New(nil).Run(t.Context(), Cmd{Path: tool, Timeout: 50 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// SIGTERM that a tool turns into exit 0 is not success.
func TestEndedIsNeverSuccess(t *testing.T) {
	tool := script(t, `trap 'exit 0' TERM; echo up >"$0.up"; sleep 1000 & wait`)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		readLine(t, tool+".up")
		cancel()
	}()
	_, err := New(nil).Run(ctx, Cmd{Path: tool})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Progress moves the deadline, without it the deadline comes, and Timeout comes
// anyway. Time is the test's own here.
func TestWatch(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		start := time.Now()
		works := func() bool { return time.Since(start) < time.Hour }
		err := watch(t.Context(), make(chan struct{}), works, 2*time.Minute, 0)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d < time.Hour+110*time.Second || d > time.Hour+130*time.Second {
			t.Errorf("ended after %v: %v", d, err)
		}
	})
	testenv.Bubble(t, func(t *testing.T) {
		start := time.Now()
		err := watch(t.Context(), make(chan struct{}), func() bool { return true }, time.Minute, 10*time.Minute)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 10*time.Minute {
			t.Errorf("ended after %v: %v", d, err)
		}
	})
	testenv.Bubble(t, func(t *testing.T) {
		// What has ended by itself was not ended by its context.
		ended := make(chan struct{})
		close(ended)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 50 {
			if err := watch(ctx, ended, func() bool { return true }, time.Minute, 0); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The breaker: kill does not help, so the runs are given up, and counted until
// they end.
func TestBreaker(t *testing.T) {
	tool := script(t, `echo $$ >"$0.$1"; exec sleep 1000`)
	r := New(&Options{Grace: time.Millisecond, Reap: time.Millisecond, MaxStuck: 2})
	r.kill = func(int, syscall.Signal) error { return nil }
	run := func(ctx context.Context, name, scope string) error {
		_, err := r.Run(ctx, Cmd{Path: tool, Args: []string{name}, Scope: scope})
		return err
	}
	for _, name := range []string{"a", "b"} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			readLine(t, tool+"."+name)
			cancel()
		}()
		err := run(ctx, name, "")
		var exit *ExitError
		if !errors.As(err, &exit) || !exit.Stuck || !errors.Is(err, backends.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: got %v", name, err)
		}
	}
	a, b := atoi(t, readLine(t, tool+".a")), atoi(t, readLine(t, tool+".b"))
	if s := r.Stuck(); len(s) != 2 || s[0].PID != a || s[1].PID != b || s[0].Path != tool || s[0].Argv != tool+" a" {
		t.Errorf("stuck: %+v", s)
	}
	if err := run(t.Context(), "c", ""); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(tool + ".c"); err == nil {
		t.Error("it ran while the breaker was open")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := run(ctx, "d", "another server"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another scope: got %v", err)
	}
	for _, s := range r.Stuck() {
		kill9(t, s.PID)
	}
	eventually(t, "the breaker closes", func() bool { return len(r.Stuck()) == 0 })
	r = New(nil)
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := run(ctx, "e", ""); errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}
