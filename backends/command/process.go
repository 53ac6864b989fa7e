package command

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is one child and its group. The child is reaped last, after its group
// is empty: until then its pid, which is the group's number, cannot be given to
// anybody else, and signals hit nobody else.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *output
	kill           func(pgid int, sig syscall.Signal) error

	zombie  chan struct{} // closed when the child has ended
	mayReap chan struct{} // closed when it may be reaped
	once    sync.Once     // for mayReap
	over    chan struct{} // closed when it is reaped; then waitErr is set
	waitErr error

	mu     sync.Mutex
	reaped bool
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// await runs on a goroutine of its own as long as the child does.
func (p *process) await() {
	if awaitZombie(p.pid()) {
		close(p.zombie)
		<-p.mayReap
		p.wait()
	} else {
		p.wait()
		close(p.zombie)
	}
	close(p.over)
}

// wait reaps the child. Where there is no waitid, a signal may race with it, but
// none is sent after it.
func (p *process) wait() {
	p.waitErr = p.cmd.Wait()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
}

// reap lets await finish, and waits for it: bounded by pipeDelay, for the child
// is a zombie.
func (p *process) reap() {
	p.once.Do(func() { close(p.mayReap) })
	<-p.over
}

// signal sends to the whole group. An error means that nobody is there, or that
// the child changed its user; the wait that follows shows it.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = p.kill(p.pid(), sig)
	}
}

// gone tells that the child has ended and nobody of its group lives.
func (p *process) gone() bool {
	return closed(p.zombie) && !groupAlive(p.pid())
}

// watch waits for the child's end (nil) or for a reason to end it.
func watch(ctx context.Context, ended <-chan struct{}, progress func() bool, idle, timeout time.Duration) error {
	period := min(max(idle/10, 20*time.Millisecond), 5*time.Second)
	tick := time.NewTicker(period)
	defer tick.Stop()
	var hard <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		hard = t.C
	}
	last := time.Now()
	for {
		var cause error
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			cause = ctxCause(ctx)
		case <-hard:
			cause = fmt.Errorf("not done after %v: %w", timeout, context.DeadlineExceeded)
		case <-tick.C:
			switch {
			case progress():
				last = time.Now()
			case time.Since(last) >= idle:
				cause = fmt.Errorf("no progress for %v: %w", idle, context.DeadlineExceeded)
			}
		}
		if cause != nil && !closed(ended) {
			return cause
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ctxCause is nil for a live context, and otherwise an error in which errors.Is
// finds both why it ended and, always, one of the two context errors.
func ctxCause(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, context.Canceled) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// end ends the group: politely, then not; false when it is still there.
func (r *Runner) end(p *process) bool {
	p.signal(syscall.SIGTERM)
	if !r.waitGone(p, r.grace) {
		p.signal(syscall.SIGKILL)
		if !r.waitGone(p, r.reap) {
			return false
		}
	}
	p.reap()
	return true
}

// waitGone looks at the group more and more seldom. The child's own end wakes it
// at once; that of its helpers has no event.
func (r *Runner) waitGone(p *process, d time.Duration) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	zombie := p.zombie
	for step := r.pollStep; ; step = min(2*step, 200*time.Millisecond) {
		if p.gone() {
			return true
		}
		t := time.NewTimer(step)
		select {
		case <-zombie:
			zombie = nil // from now on the group is looked at by time
		case <-t.C:
		case <-deadline.C:
			t.Stop()
			return p.gone()
		}
		t.Stop()
	}
}
