package nfs

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// purges empties the trash of shares, one purge for each at a time.
type purges struct {
	mu sync.Mutex
	m  map[string]*purging
}

type purging struct{ again bool }

// purge empties the trash of a share in the background. What it cannot remove stays
// for the next time.
func (b *Backend) purge(s Share) {
	p := &b.purges
	p.mu.Lock()
	defer p.mu.Unlock()
	name := s.String()
	if running := p.m[name]; running != nil {
		running.again = true
		return
	}
	if b.ctx.Err() != nil {
		return
	}
	if p.m == nil {
		p.m = map[string]*purging{}
	}
	run := &purging{again: true}
	p.m[name] = run
	b.wg.Go(func() {
		for run.next(p, name) {
			if !b.purgeNow(b.ctx, s) {
				run.stop(p, name)
				return
			}
		}
	})
}

func (r *purging) next(p *purges, name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.again {
		delete(p.m, name)
		return false
	}
	r.again = false
	return true
}

func (r *purging) stop(p *purges, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.m, name)
}

func (b *Backend) purgeNow(ctx context.Context, s Share) bool {
	out, err := onShare[purgeOut](ctx, b, s, "purge", opPurge, purgeIn{b.where()})
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		b.log.Warn("what was deleted is not removed yet", "share", s.String(), "err", err)
		return false
	}
	for _, left := range out.Left {
		b.log.Error("what was deleted cannot be removed", "share", s.String(), "err", left)
	}
	return true
}

// RecoverController prepares the configured shares and goes on with what an earlier
// process began. A share that does not answer is left for later: each call for it
// tries again by itself.
func (b *Backend) RecoverController(ctx context.Context) error {
	if err := b.serves(ControllerHalf); err != nil {
		return err
	}
	for _, s := range b.o.Shares {
		if err := b.recoverShare(ctx, s); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b.log.Warn("share is not available", "share", s.String(), "err", err)
		}
	}
	b.startGuard()
	return nil
}

func (b *Backend) recoverShare(ctx context.Context, s Share) error {
	if _, err := onShare[bool](ctx, b, s, "", opInit, initIn{b.initWhere()}); err != nil {
		return err
	}
	trash, err := onShare[bool](ctx, b, s, "", opTrash, trashIn{b.where()})
	if err != nil {
		return err
	}
	if trash {
		b.purge(s)
	}
	return b.resumeAll(ctx, s)
}

// initWhere is where for a call that may prepare the share. One that is known already
// nobody prepares again: see identity. Nodes prepare none: there are always new ones, of
// which each would believe that an empty mount point is the share.
func (b *Backend) initWhere() where {
	w := b.where()
	w.Init = b.o.Init && b.o.Half&ControllerHalf != 0
	return w
}

// resumeAll goes on with the snapshots of a share that are not whole.
func (b *Backend) resumeAll(ctx context.Context, s Share) error {
	for after := ""; ; {
		out, err := onShare[listOut](ctx, b, s, "", opSnapList, listIn{where: b.where(), After: after, Limit: 1000})
		if err != nil {
			return err
		}
		for _, e := range out.Entries {
			if e.Snap != nil {
				b.resume(s, e.Snap)
			}
			after = e.Key
		}
		if !out.More {
			return nil
		}
	}
}

// maxCopies go on at a time, each in a lane of its own: a copy keeps a process, and the
// server, busy.
const maxCopies = 4

// copyLane waits for a lane for a long task; leave gives it back.
func (b *Backend) copyLane(ctx context.Context) (lane string, leave func(), err error) {
	alive := time.NewTicker(10 * time.Second)
	defer alive.Stop()
	for {
		select {
		case n := <-b.copies:
			return "copy " + strconv.Itoa(n), func() { b.copies <- n }, nil
		case <-alive.C:
			backends.Progress(ctx, "waits for other copies")
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		}
	}
}
