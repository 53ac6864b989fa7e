package nfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// testTasks are what workers of tests can do besides.
func testTasks() map[string]task {
	return map[string]task{
		"test/echo": func(_ context.Context, t *taskCall) (any, error) {
			var s string
			err := t.decode(&s)
			return t.root + ":" + s, err
		},
		"test/pid": func(context.Context, *taskCall) (any, error) { return os.Getpid(), nil },
		"test/hang": func(context.Context, *taskCall) (any, error) {
			select {}
		},
		"test/slow": func(_ context.Context, t *taskCall) (any, error) {
			for range 20 {
				time.Sleep(50 * time.Millisecond) // no test waits for this: it shows that progress does
				t.progress("still here")
			}
			return "done", nil
		},
		"test/until cancelled": func(ctx context.Context, _ *taskCall) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		// As the kernel does, it says nothing before it is done, and is not to be stopped.
		opMount: func(ctx context.Context, t *taskCall) (any, error) {
			var m mountTask
			if err := t.decode(&m); err != nil || m.Source != "test" {
				return nodeTasks()[opMount](ctx, t)
			}
			err := os.WriteFile(m.Target+"/asked", fmt.Append(nil, os.Getpid()), 0o600)
			for err == nil {
				if _, err := os.Stat(m.Target + "/go"); err == nil {
					return nil, os.WriteFile(m.Target+"/mounted", nil, 0o600)
				}
				time.Sleep(time.Millisecond)
			}
			return nil, err
		},
		"test/panic": func(context.Context, *taskCall) (any, error) { panic("of a task") },
		"test/exit":  func(context.Context, *taskCall) (any, error) { os.Exit(3); return nil, nil },
		"test/eio": func(context.Context, *taskCall) (any, error) {
			return nil, &os.PathError{Op: "stat", Path: "/x", Err: syscall.EIO}
		},
		"test/missing": func(context.Context, *taskCall) (any, error) {
			return nil, fmt.Errorf("share: %w", backends.VolumeNotFound("v1"))
		},
		"test/full": func(context.Context, *taskCall) (any, error) {
			return nil, fmt.Errorf("%w: mkdir: %w", backends.ErrNoSpace, syscall.ENOSPC)
		},
	}
}

// soon is when a test's worker gives up what is to hang. What is to be answered has
// time: the start of a process counts, too.
const soon = 400 * time.Millisecond

// fast are workers that ask the server early, and it answers as answer says.
func fast(t *testing.T, answer func() error) *workers {
	t.Helper()
	ws := newWorkers(slog.New(slog.DiscardHandler))
	ws.times = times{call: 5 * time.Minute, ask: 100 * time.Millisecond, idle: time.Minute, kill: time.Minute}
	ws.breakers.ping = func(context.Context, string) error { return answer() }
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		ws.close()
		for i := 0; runtime.NumGoroutine() > before; i++ {
			if i == 3000 {
				b := make([]byte, 64<<10)
				t.Errorf("%d goroutines, and %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
				break
			}
			time.Sleep(10 * time.Millisecond) // until they have ended: there is no event
		}
		if ws.mu.Lock(); len(ws.hung) > 0 {
			t.Errorf("workers hang: %v", ws.hung)
		}
		ws.mu.Unlock()
	})
	return ws
}

func alive() error { return nil }

func TestFar(t *testing.T) {
	ws := fast(t, alive)
	dir := t.TempDir()
	got, err := far[string](t.Context(), ws, place{Dir: dir}, "", "test/echo", "hello")
	if err != nil || got != dir+":hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := far[string](t.Context(), ws, place{Dir: dir + "/none"}, "", "test/echo", ""); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("a share that is not there: %v", err)
	}
}

// TestFarShared: short tasks of one share have one process, named ones their own.
func TestFarShared(t *testing.T) {
	ws := fast(t, alive)
	p := place{Dir: t.TempDir()}
	pid := func(name string) int {
		n, err := far[int](t.Context(), ws, p, name, "test/pid", nil)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if short := pid(""); short != pid("") || short == pid("copy") || short == os.Getpid() {
		t.Error("want one process for short tasks, another one for a named task, and none of them this one")
	}
}

// TestFarErrors: kinds, numbers and what is not found survive the way.
func TestFarErrors(t *testing.T) {
	ws := fast(t, alive)
	do := func(op string) error {
		_, err := far[string](t.Context(), ws, place{Dir: t.TempDir()}, "", op, nil)
		return err
	}
	if err := do("test/full"); !errors.Is(err, backends.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full: %v", err)
	}
	err := do("test/missing")
	if nf, ok := errors.AsType[*backends.NotFoundError](err); !ok || nf.ID != "v1" || nf.Kind != backends.KindVolume || !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	if err := do("test/panic"); err == nil || !strings.Contains(err.Error(), "of a task") {
		t.Errorf("panic: %v", err)
	}
	if err := do("test/exit"); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("exit: %v", err)
	}
	if err := do("test/none"); err == nil {
		t.Error("an unknown task is no error")
	}
}

// TestFarHang: a task that hangs ends in its time, with all that share its worker,
// and from then on the server is dead until it answers.
func TestFarHang(t *testing.T) {
	l := lane{server: "nfs1:2049", name: "node", within: true}
	var ws *workers
	var pings, ahead atomic.Int64
	// Of a machine that stands still until the time is over nobody asks the server.
	for limit := soon; pings.Load() == 0 && limit < time.Minute; limit *= 4 {
		ws = fast(t, func() error { pings.Add(1); return nil })
		ws.times.call = limit
		begun := time.Now()
		ws.breakers.now = func() time.Time { return begun.Add(time.Duration(ahead.Load())) }
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := call[string](t.Context(), ws, l, "test/hang", nil); !errors.Is(err, backends.ErrUnavailable) {
					t.Errorf("hang: %v", err)
				}
			})
		}
		wg.Wait()
	}
	if pings.Load() == 0 {
		t.Error("the server was not asked")
	}
	// Who asks the server has an answer, and no error.
	_, err := call[string](t.Context(), ws, l, "test/echo", "x")
	if !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), "nfs1:2049 has not answered") {
		t.Errorf("after it: %v", err)
	}
	ahead.Store(int64(time.Minute))
	patient := fast(t, alive) // a worker that has time to start
	patient.breakers = ws.breakers
	if got, err := call[string](t.Context(), patient, l, "test/echo", "x"); err != nil || got != ":x" {
		t.Errorf("when it is back: %q, %v", got, err)
	}
	if err := ws.breakers.state("nfs1:2049"); err != nil {
		t.Errorf("still dead: %v", err)
	}
}

// TestFarSilent: a server that does not answer a question ends the task earlier.
func TestFarSilent(t *testing.T) {
	ws := fast(t, func() error { return errNoServer })
	_, err := call[string](t.Context(), ws, lane{server: "nfs1:2049", within: true}, "test/hang", nil)
	if !errors.Is(err, backends.ErrUnavailable) || !errors.Is(err, errNoServer) {
		t.Error(err)
	}
}

// TestFarProgress: a task that goes on is not ended.
func TestFarProgress(t *testing.T) {
	ws := fast(t, alive)
	got, err := call[string](t.Context(), ws, lane{server: "nfs1:2049", within: true}, "test/slow", nil)
	if err != nil || got != "done" {
		t.Errorf("%q, %v", got, err)
	}
}

// sent waits for the one task of a lane to be with its worker.
func (ws *workers) sent(ctx context.Context, l lane) (*worker, *farCall) {
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		ws.mu.Lock()
		w := ws.running[l]
		ws.mu.Unlock()
		if w == nil {
			continue
		}
		w.mu.Lock()
		calls := slices.Collect(maps.Values(w.calls))
		w.mu.Unlock()
		if len(calls) > 0 {
			return w, calls[0]
		}
	}
	return nil, nil
}

// TestFarLeft: who does not wait does not stop the clock: the worker is ended all
// the same, and no process is left.
func TestFarLeft(t *testing.T) {
	ws := fast(t, alive)
	l := lane{server: "nfs1:2049", within: true}
	ctx, cancel := context.WithCancel(t.Context())
	left, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w, c := ws.sent(t.Context(), l)
		if w == nil {
			return
		}
		cancel()
		<-left
		w.mu.Lock()
		c.since = c.since.Add(-time.Hour)
		w.mu.Unlock()
		<-w.over
	}()
	_, err := call[string](ctx, ws, l, "test/hang", nil)
	close(left)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-ended
	if ws.breakers.state("nfs1:2049") == nil {
		t.Error("the server is not dead")
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		time.Sleep(10 * time.Millisecond) // the call may as well not have begun
		cancel()
	}()
	if _, err := call[string](ctx, ws, lane{name: "other", within: true}, "test/until cancelled", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFarMount: a mount that was asked for, and is not wanted any more, has come to be
// when its call returns, or never does: the path would be taken to be free.
func TestFarMount(t *testing.T) {
	ask := func(t *testing.T, ws *workers, cancelled func(dir string)) (dir string, err error) {
		dir = t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for t.Context().Err() == nil {
				if b, err := os.ReadFile(dir + "/asked"); err == nil && len(b) > 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			cancel()
			cancelled(dir)
		}()
		_, err = call[struct{}](ctx, ws, lane{server: "nfs1:2049", name: laneNode, within: true}, opMount, mountTask{Source: "test", Target: dir})
		return dir, err
	}
	t.Run("comes to be", func(t *testing.T) {
		dir, err := ask(t, fast(t, alive), func(dir string) {
			time.Sleep(50 * time.Millisecond) // in which nobody may return
			if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir + "/mounted"); err != nil {
			t.Error(err)
		}
	})
	t.Run("never does", func(t *testing.T) {
		var asked atomic.Bool // a worker that is dead before it has begun mounts nothing anyhow
		dead := func() error {
			if !asked.Load() {
				return nil
			}
			return errors.New("dead")
		}
		dir, err := ask(t, fast(t, dead), func(string) { asked.Store(true) })
		if !errors.Is(err, backends.ErrUnavailable) {
			t.Error(err)
		}
		pid, err := os.ReadFile(dir + "/asked")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/proc/" + string(pid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the worker %s may mount still: %v", pid, err)
		}
	})
}

// TestFarSoft: an error of a mount with the option soft is no answer when the server
// gives none.
func TestFarSoft(t *testing.T) {
	down := true
	ws := fast(t, func() error {
		if down {
			return errNoServer
		}
		return nil
	})
	ws.times.ask = time.Hour // only for its error
	l := lane{server: "nfs1:2049", within: true}
	if _, err := call[string](t.Context(), ws, l, "test/eio", nil); !errors.Is(err, backends.ErrUnavailable) || !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if ws.breakers.state("nfs1:2049") == nil {
		t.Error("the server is not dead")
	}
	down = false
	ws.breakers.now = func() time.Time { return time.Now().Add(time.Minute) }
	if _, err := call[string](t.Context(), ws, l, "test/eio", nil); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if _, err := call[int](t.Context(), ws, l, "test/pid", nil); err != nil {
		t.Error(err)
	}
}

// TestFarIdle: a worker that has nothing to do ends, and nobody notices.
func TestFarIdle(t *testing.T) {
	ws := fast(t, alive)
	ws.times.idle = time.Millisecond
	for range 20 {
		if _, err := far[string](t.Context(), ws, place{Dir: t.TempDir()}, "", "test/echo", ""); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFarClosed(t *testing.T) {
	ws := fast(t, alive)
	ws.close()
	if _, err := call[string](t.Context(), ws, lane{within: true}, "test/pid", nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
}
