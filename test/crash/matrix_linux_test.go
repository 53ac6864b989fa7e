package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// reference is what an undisturbed driver does in a scenario.
type reference struct {
	before      world // an empty pool, nothing on the node
	after       world // the call was answered
	descriptors world // of a driver that was killed after that, and answered again
	stopped     world // at the end
	points      []kill
	syscalls    []kill
	tools       []kill // of programs that the driver runs
}

// refer runs a scenario undisturbed; with a trace if one is wanted.
func (b *bench) refer(ctx context.Context, s *scenario, traced bool) (r *reference, err error) {
	r = &reference{}
	e, err := b.newEnv(ctx, s, "CSIKIT_FAULT_LOG="+fmt.Sprintf("%s/%d.reached", b.dir, b.next()))
	if e != nil {
		defer func() {
			if err != nil {
				err = fmt.Errorf("%s, undisturbed: %w\n%s", s.name, err, e.Tail(20))
			}
			err = errors.Join(err, e.close())
		}()
	}
	if err != nil {
		return nil, err
	}
	log := strings.TrimPrefix(e.Env[len(e.Env)-1], "CSIKIT_FAULT_LOG=")
	if r.before, err = e.quiet(e.running, e.idle); err != nil {
		return nil, err
	}
	if err := s.setup(e); err != nil {
		return nil, err
	}
	seen, err := reached(log)
	if err != nil {
		return nil, err
	}
	if err := e.steps(step{"call", s.call(e)}); err != nil {
		return nil, err
	}
	if r.after, err = e.quiet(e.running, e.idle); err != nil {
		return nil, err
	}
	all, err := reached(log)
	if err != nil {
		return nil, err
	}
	r.points = numbered(all[len(seen):])
	if err := e.restart(); err != nil {
		return nil, err
	}
	if err := e.retried(r, true); err != nil {
		return nil, err
	}
	if err := e.undone(r, true); err != nil {
		return nil, err
	}
	if traced {
		r.syscalls, r.tools, err = b.tracedCall(ctx, s)
	}
	return r, err
}

func (b *bench) next() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	return b.n
}

// quiet is what is seen when it does not change any more, and nobody is at work who
// may yet change it: one that only stands still for a moment is waited for.
func (e *env) quiet(look func() (world, error), idle func() (bool, error)) (world, error) {
	var last world
	same := 0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(15 * time.Millisecond) {
		is, err := idle()
		if err != nil {
			return nil, err
		}
		now, err := look()
		if err != nil {
			return nil, err
		}
		if same++; !is || !slices.Equal(now, last) {
			same = 0
		}
		if last = now; same == 3 {
			return now, nil
		}
	}
	return nil, errors.New("the world does not settle")
}

func (e *env) running() (world, error) { return e.look(true) }
func (e *env) stopped() (world, error) { return e.look(false) }

// idle says whether the driver does nothing: none of its threads runs, would run, is
// stopped or waits for a disk, and it has no child. A call would reach fault points.
func (e *env) idle() (bool, error) {
	threads, err := e.threads()
	for _, t := range threads {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", e.PID(), t))
		if err != nil {
			continue // it has ended
		}
		if _, state, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(state, "S") {
			return false, nil
		}
	}
	return len(e.children()) == 0, err
}

// gone is idle of a driver that has ended.
func gone() (bool, error) { return true, nil }

func reached(log string) ([]string, error) {
	b, err := os.ReadFile(log)
	return strings.Fields(string(b)), err
}

// numbered counts each name.
func numbered(names []string) []kill {
	count := map[string]int{}
	var all []kill
	for _, n := range names {
		count[n]++
		all = append(all, kill{point: n, n: count[n]})
	}
	return all
}

// tracedCall finds the state-changing system calls of the scenario's call.
func (b *bench) tracedCall(ctx context.Context, s *scenario) (driver, tools []kill, err error) {
	e, err := b.newEnv(ctx, s)
	if e != nil {
		defer func() { err = errors.Join(err, e.close()) }()
	}
	if err != nil {
		return nil, nil, err
	}
	if err := s.setup(e); err != nil {
		return nil, nil, err
	}
	threads, err := e.threads()
	if err != nil {
		return nil, nil, err
	}
	t, err := e.trace(strings.Join(changing, ",") + ",clone,clone3")
	if err != nil {
		return nil, nil, err
	}
	err = e.steps(step{"call", s.call(e)})
	if err := errors.Join(err, t.stop(false)); err != nil {
		return nil, nil, err
	}
	if driver, tools, err = syscalls(t.log, threads); err != nil {
		return nil, nil, err
	}
	return driver, tools, e.undone(nil, false)
}

// retried repeats the call until OK, and compares.
func (e *env) retried(r *reference, first bool) error {
	if err := e.steps(step{"call again", e.s.call(e)}); err != nil {
		return err
	}
	if err := e.settle(r.after, e.running); err != nil {
		return fmt.Errorf("after the call was repeated:\n\t%w", err)
	}
	if first {
		var err error
		if r.descriptors, err = e.quiet(e.descriptors, e.idle); err != nil {
			return err
		}
	}
	if err := e.settle(r.descriptors, e.descriptors); err != nil {
		return fmt.Errorf("after the call was repeated:\n\t%w", err)
	}
	if err := e.s.check(e); err != nil {
		return fmt.Errorf("after the call was repeated: %w", err)
	}
	return nil
}

// undone takes everything away, and looks that nothing is left, also behind a driver
// that was stopped. A nil reference: that is not looked at.
func (e *env) undone(r *reference, first bool) error {
	if err := e.steps(e.s.undo(e)...); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	if r == nil {
		return nil
	}
	if err := e.settle(r.before, e.running); err != nil {
		return fmt.Errorf("after it was undone:\n\t%w", err)
	}
	if err := e.Stop(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if first {
		var err error
		if r.stopped, err = e.quiet(e.stopped, gone); err != nil {
			return err
		}
	}
	if err := e.settle(r.stopped, e.stopped); err != nil {
		return fmt.Errorf("after the driver was stopped:\n\t%w", err)
	}
	return nil
}

// What the CO does after the driver's death: it repeats the call; it gives up; or it
// repeats the call after the driver died again and again in its recovery, at each
// fault point of that.
const (
	retry = "retry"
	undo  = "undo"
	loops = "loop"
)

// kase is a death, and what comes then.
type kase struct {
	s   *scenario
	k   kill
	run string
}

func (c kase) String() string { return fmt.Sprintf("%s|%s|%s", c.s.name, c.k, c.run) }

// run is one case. An error is a finding.
func (c kase) play(ctx context.Context, b *bench, r *reference) (died bool, err error) {
	e, err := b.newEnv(ctx, c.s)
	if e != nil {
		defer func() {
			if err != nil {
				err = fmt.Errorf("%w\n\tits log ends:\n%s", err, e.Tail(8))
			}
			err = errors.Join(err, e.close())
		}()
	}
	if err != nil {
		return false, err
	}
	if err := c.s.setup(e); err != nil {
		return false, fmt.Errorf("before the kill: %w", err)
	}
	if died, err = c.k.during(e, c.s.call(e)); err != nil {
		return died, err
	}
	if c.run == loops {
		err = e.crashLoop()
	}
	if err == nil {
		err = e.restart()
	}
	if err != nil {
		return died, fmt.Errorf("restart: %w", err)
	}
	switch {
	case c.run != undo:
		err = e.retried(r, false)
	case c.s.again != nil:
		if err = c.s.again(e); err != nil {
			err = fmt.Errorf("wanted back: %w", err)
		}
	}
	if err != nil {
		return died, err
	}
	return died, e.undone(r, false)
}

// crashLoop starts the driver until it lives, and kills it at the first fault point
// of its start, then at the second, and so on.
func (e *env) crashLoop() error {
	for n := 1; n < 200; n++ {
		if err := e.Kill(); err != nil {
			return err
		}
		if err := os.WriteFile(e.path("fault"), fmt.Appendf(nil, "*:%d", n), 0o600); err != nil {
			return err
		}
		err := e.Start(e.client)
		if err == nil {
			return os.Remove(e.path("fault"))
		}
		if !strings.Contains(err.Error(), "killed") {
			return err
		}
	}
	return errors.New("no end of fault points in the recovery")
}
