package nfs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// jobs are the copies of snapshots that go on after their call was answered, by the
// ID of the snapshot.
type jobs struct {
	mu   sync.Mutex
	m    map[string]*job
	gone map[string]string // snapshots that were lost, and why; until they are asked for again
}

type job struct {
	cancel context.CancelFunc
	done   chan struct{}
}

var errLost = errors.New("its copy was lost")

// maxGone bounds what is remembered of snapshots that nobody asks for again.
const maxGone = 1000

func (j *jobs) get(id string) *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.m[id]
}

// wait waits at most d for a job to end.
func (j *jobs) wait(ctx context.Context, id string, d time.Duration) {
	job := j.get(id)
	if job == nil {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-job.done:
	case <-t.C:
	case <-ctx.Done():
	}
}

// stop ends a job.
func (j *jobs) stop(ctx context.Context, id string) error {
	job := j.get(id)
	if job == nil {
		return nil
	}
	job.cancel()
	select {
	case <-job.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (j *jobs) lose(id, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone == nil || len(j.gone) > maxGone {
		j.gone = map[string]string{}
	}
	j.gone[id] = why
}

// lost says why there is no such snapshot.
func (j *jobs) lost(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	why := j.gone[id]
	delete(j.gone, id)
	if why == "" {
		return errLost
	}
	return errors.New(why)
}

// resume copies what a snapshot is of, unless it is whole or somebody does so.
func (b *Backend) resume(s Share, m *snapMark) {
	if m.State != stateCopying || m.Hook {
		return
	}
	id := handle{tag: snapshotTag, share: s, key: m.Key}.String()
	b.jobs.mu.Lock()
	defer b.jobs.mu.Unlock()
	if b.ctx.Err() != nil || b.jobs.m[id] != nil {
		return
	}
	if b.jobs.m == nil {
		b.jobs.m = map[string]*job{}
	}
	ctx, cancel := context.WithCancel(b.ctx)
	run := &job{cancel: cancel, done: make(chan struct{})}
	b.jobs.m[id] = run
	b.wg.Go(func() {
		defer close(run.done)
		defer cancel()
		b.copySnapshot(ctx, s, m, id)
		b.jobs.mu.Lock()
		defer b.jobs.mu.Unlock()
		delete(b.jobs.m, id)
	})
}

func (b *Backend) copySnapshot(ctx context.Context, s Share, m *snapMark, id string) {
	lane, leave, err := b.copyLane(ctx)
	if err != nil {
		return // the next process goes on
	}
	defer leave()
	out, err := onShare[snapOut](ctx, b, s, lane, opSnapCopy, snapIn{b.where(), m.Key})
	switch {
	case ctx.Err() != nil:
	case err != nil && errors.Is(err, backends.ErrNotFound):
		b.jobs.lose(id, err.Error())
	case err != nil:
		b.log.Warn("snapshot is not copied yet", "id", id, "err", err)
	case out.Lost != "":
		b.jobs.lose(id, out.Lost)
		b.log.Error("snapshot is lost", "id", id, "volume", m.VolumeID, "why", out.Lost)
		b.purge(s)
	default:
		b.log.Info("snapshot is copied", "id", id, "files", out.Copied.Files, "bytes", out.Copied.Bytes,
			"shared", out.Copied.Shared, "kept", out.Copied.Kept, "written_to_meanwhile", out.Copied.Unsteady)
	}
}
