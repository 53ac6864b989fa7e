package mounter

import (
	"context"
	"time"
)

const (
	healPause    = time.Second // doubled after each attempt, up to maxHealPause
	maxHealPause = time.Minute
)

// begin starts the work that nobody asks for: what died while this driver was away
// is healed, and what dies from now on. It ends with [Engine.Close].
func (f *serving) begin(e *Engine) {
	if e.opts.Servers == nil {
		return
	}
	f.mu.Lock()
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.healing = map[string]bool{}
	f.mu.Unlock()
	if s := e.records(); s != nil {
		for _, r := range s.list(func(r *record) bool { return r.Kind == kindStage && r.Source == sourceFUSE }) {
			f.suspect(e, r.Volume)
		}
	}
	if w, ok := e.opts.Servers.(ServerWatcher); ok {
		f.wait.Go(func() { f.watch(e, w) })
	}
}

func (f *serving) end() {
	f.mu.Lock()
	stop := f.stop
	f.ctx, f.stop = nil, nil
	f.mu.Unlock()
	if stop != nil {
		stop()
		f.wait.Wait()
	}
}

// watch listens to the host for as long as there is one.
func (f *serving) watch(e *Engine, w ServerWatcher) {
	f.mu.Lock()
	ctx := f.ctx
	f.mu.Unlock()
	for pause := healPause; ctx != nil; pause = min(2*pause, maxHealPause) {
		begun := time.Now()
		err := w.Watch(ctx, func(s ServerStatus) { f.suspect(e, s.ID) })
		if time.Since(begun) > maxHealPause {
			pause = healPause
		}
		if !sleep(ctx, pause) {
			return
		}
		if err != nil {
			e.log.DebugContext(ctx, "host of FUSE servers is not watched", "err", err)
		}
	}
}

// suspect heals a volume in the background, if it has to be.
func (f *serving) suspect(e *Engine, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := e.records()
	if f.ctx == nil || f.healing[id] || s == nil || e.fuseRecord(s, id) == nil {
		return
	}
	ctx := f.ctx
	f.healing[id] = true
	f.wait.Go(func() { f.healer(ctx, e, id) })
}

// healer tries until the volume is well, or not there any more. A server that dies
// as soon as it is started is started less and less often.
func (f *serving) healer(ctx context.Context, e *Engine, id string) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.healing, id)
	}()
	for pause := healPause; ; pause = min(2*pause, maxHealPause) {
		was := e.isSick(ctx, id)
		err := e.healUnasked(ctx, id)
		if ctx.Err() != nil || err == nil && !was {
			return
		}
		if err != nil {
			e.log.WarnContext(ctx, "FUSE volume is not healed", "volume", id, "again in", pause, "err", err)
		}
		// Also after a success: the next server may die as soon as this one.
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (e *Engine) isSick(ctx context.Context, id string) bool {
	s := e.records()
	if s == nil {
		return false
	}
	r := e.fuseRecord(s, id)
	if r == nil {
		return false
	}
	sick, err := e.sick(ctx, s, r)
	return err == nil && sick
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
