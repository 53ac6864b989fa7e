package command

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
)

// Stuck is a process group that was killed and is still there: it waits inside
// the kernel for storage that does not answer.
type Stuck struct {
	Path, Scope string // of its Cmd, the path resolved
	Argv        string // redacted
	PID         int
	Since       time.Time // when it was given up
}

type breakerKey struct{ path, scope string }

// breaker counts the stuck processes of each tool.
type breaker struct {
	max   int
	mu    sync.Mutex
	stuck map[*process]Stuck
}

// allow refuses a run while too many earlier ones are stuck.
func (b *breaker) allow(k breakerKey) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, oldest := 0, Stuck{}
	for _, s := range b.stuck {
		if s.Path == k.path && s.Scope == k.scope {
			if n++; n == 1 || s.Since.Before(oldest.Since) {
				oldest = s
			}
		}
	}
	if n < b.max {
		return nil
	}
	return fmt.Errorf("%w: %d earlier runs hang in the kernel and cannot be killed, for %v pid %d (%s)",
		backends.ErrUnavailable, n, time.Since(oldest.Since).Round(time.Second), oldest.PID, oldest.Argv)
}

func (b *breaker) add(p *process, s Stuck) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stuck == nil {
		b.stuck = map[*process]Stuck{}
	}
	b.stuck[p] = s
}

func (b *breaker) remove(p *process) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.stuck, p)
}

func (b *breaker) list() []Stuck {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := make([]Stuck, 0, len(b.stuck))
	for _, s := range b.stuck {
		l = append(l, s)
	}
	slices.SortFunc(l, func(x, y Stuck) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.PID, y.PID))
	})
	return l
}

// giveUp counts p as stuck and reaps it in the background when it wakes.
func (r *Runner) giveUp(ctx context.Context, p *process, k breakerKey, argv string) {
	s := Stuck{Path: k.path, Scope: k.scope, Argv: argv, PID: p.pid(), Since: time.Now()}
	r.breaker.add(p, s)
	r.log.LogAttrs(ctx, slog.LevelWarn, "command cannot be killed", slog.String("argv", argv), slog.Int("pid", s.PID))
	go func() {
		<-p.zombie
		for step := r.pollStep; !p.gone(); step = min(2*step, time.Second) {
			p.signal(syscall.SIGKILL) // to what the group has forked since
			time.Sleep(step)
		}
		p.reap()
		r.breaker.remove(p)
		r.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelWarn, "stuck command has ended", slog.String("argv", argv),
			slog.Int("pid", s.PID), slog.Duration("stuck", time.Since(s.Since)))
	}()
}
