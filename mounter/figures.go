package mounter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// statsMargin is kept before the caller's deadline: an answer that comes with it
// comes too late.
const statsMargin = 500 * time.Millisecond

// statsKey names what is asked. The number is in it because a volume that was
// unmounted while a question hung, and is staged anew, is another one to ask.
func statsKey(volume string, dev uint64) string { return statsPrefix(volume) + devName(dev) }

func statsPrefix(volume string) string { return volume + "\x00" }

// figures are those of the file system or device with the number dev, the last
// known ones when it does not answer.
func (e *Engine) figures(ctx context.Context, r *record, path string, dev uint64) (*Stats, error) {
	st, err := e.fresh(ctx, r, path, dev)
	if !errors.Is(err, errNoAnswer) {
		return &st, err
	}
	last, age, first, ok := e.known.last(statsKey(r.Volume, dev))
	switch {
	case !ok:
		return nil, unavailable("figures: %w", err)
	case age > e.opts.StatsMaxAge:
		return nil, unavailable("figures: %w; the last ones are %s old", err, age.Round(time.Second))
	}
	if first {
		e.log.WarnContext(ctx, "volume does not answer; its last known figures are given", "volume", r.Volume, "path", path, "age", age, "err", err)
	}
	last.Age = max(age, 1)
	return &last, nil
}

// fresh is figures without old ones.
func (e *Engine) fresh(ctx context.Context, r *record, path string, dev uint64) (Stats, error) {
	key := statsKey(r.Volume, dev)
	return e.stats.get(ctx, key, e.patience(ctx, e.stats.age(key)), func() (Stats, error) {
		st, err := e.ask(ctx, r, path, dev)
		if err == nil {
			e.known.keep(key, st, e.opts.StatsMaxAge)
		}
		return st, err
	})
}

// patience is how long a caller waits for a question that runs since age ago: the
// time counts from its start, so that whoever comes later to one that hangs does not
// wait all of it again. It ends before the caller's own.
func (e *Engine) patience(ctx context.Context, age time.Duration) time.Duration {
	wait := e.opts.StatsTimeout - age
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		wait = min(wait, left-min(statsMargin, left/2))
	}
	return max(wait, time.Millisecond)
}

// settleTime is how long a volume that is taken off waits for a question about it.
const settleTime = 2 * time.Second

// settle waits for the questions about a volume that run: each holds the file system
// for a moment after it was unmounted. One that hangs holds it for longer, and the
// device's claim says so.
func (e *Engine) settle(ctx context.Context, volume string) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	e.stats.wait(ctx, statsPrefix(volume))
	e.health.wait(ctx, statsPrefix(volume))
}

// ask may hang.
func (e *Engine) ask(ctx context.Context, r *record, path string, dev uint64) (Stats, error) {
	switch reporter := e.features.StatsReporter; {
	case r.block():
		size, err := e.deviceSize(context.WithoutCancel(ctx), r.data())
		return Stats{Block: true, VolumeStats: backends.VolumeStats{Total: size}}, err
	case reporter != nil:
		return e.reported(ctx, reporter, backends.VolumeStatsRequest{ID: r.Volume, Path: path, State: e.stateOf(r)})
	}
	v, err := e.kernel.StatFS(path)
	if err != nil {
		return Stats{}, unavailable("statfs: %w", err)
	}
	// Whoever unmounted it meanwhile left a directory of the node's own disk there.
	if again, err := e.mountsAt(path); err != nil || len(again) == 0 || again[0].Dev != dev {
		return Stats{}, unavailable("statfs: the volume was unmounted meanwhile")
	}
	return Stats{VolumeStats: v}, nil
}

func (e *Engine) deviceSize(ctx context.Context, r *deviceRecord) (int64, error) {
	d, err := e.openRecorded(ctx, r)
	if err != nil {
		return 0, soften(err)
	}
	size, err := d.Size()
	if err = errors.Join(err, d.Close()); err != nil {
		return 0, unavailable("size of device %s: %w", r.Path, err)
	}
	return size, nil
}

// reported asks the backend, whose context outlives the caller that came first:
// others may wait for the same answer.
func (e *Engine) reported(ctx context.Context, reporter backends.StatsReporter, req backends.VolumeStatsRequest) (Stats, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.StatsTimeout)
	defer cancel()
	v, err := reporter.VolumeStats(ctx, req)
	switch {
	case err != nil && ctx.Err() != nil:
		return Stats{}, fmt.Errorf("%w of the backend after %s: %w", errNoAnswer, e.opts.StatsTimeout, err)
	case err != nil:
		return Stats{}, err
	case v == nil:
		return Stats{}, unavailable("the backend gave no figures and no error")
	}
	return Stats{VolumeStats: *v}, nil
}

// knownStats are the last figures, by the key of the question. The zero value is
// ready.
type knownStats struct {
	mu sync.Mutex
	m  map[string]knownStat
}

type knownStat struct {
	st    Stats
	at    time.Time
	given bool // for those of now
}

// keep notes figures, and forgets those that nobody may be given any more: what is
// unstaged is not asked again.
func (k *knownStats) keep(key string, st Stats, maxAge time.Duration) {
	if maxAge < 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[string]knownStat{}
	}
	for old, v := range k.m {
		if time.Since(v.at) > maxAge+time.Hour { // for an hour the message says how old they are
			delete(k.m, old)
		}
	}
	k.m[key] = knownStat{st: st, at: time.Now()}
}

// last figures; first says that nobody was given them since they were kept.
func (k *knownStats) last(key string) (st Stats, age time.Duration, first, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.m[key]
	if !ok {
		return Stats{}, 0, false, false
	}
	first, v.given = !v.given, true
	k.m[key] = v
	return v.st, time.Since(v.at), first, true
}
