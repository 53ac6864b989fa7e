package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// jobWait is how long CreateSnapshot waits for its copy: a small one is then
// ready at once, and the CO need not ask again.
const jobWait = time.Second

// noteEvery is how much is copied between two durable notes of how far.
const noteEvery = 4 << 30

// checkpoint is told after so many bytes how far a copy has come.
type checkpoint struct {
	every int64 // 0: never
	f     func(done int64) error
}

// jobs are the copies that go on after their call was answered, by the ID of the
// set. One that ended without success stays listed: its volumes must not be
// deleted, and the next look at the snapshot starts it again.
type jobs struct {
	mu     sync.Mutex
	m      map[string]*job
	closed bool
}

type job struct {
	volumes []string
	cancel  context.CancelFunc // nil: not running
	done    chan struct{}      // closed when it is not running
}

// of is the snapshot that is being copied from a volume; "": none.
func (j *jobs) of(volume string) (snapshot string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, job := range j.m {
		if slices.Contains(job.volumes, volume) {
			return id
		}
	}
	return ""
}

// start runs f unless a job of this name runs. f says whether the copy is ended
// for good.
func (j *jobs) start(id string, volumes []string, users *sync.WaitGroup, f func(ctx context.Context) (over bool)) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if old := j.m[id]; j.closed || old != nil && old.cancel != nil {
		return false
	}
	if j.m == nil {
		j.m = map[string]*job{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	job := &job{volumes: volumes, cancel: cancel, done: make(chan struct{})}
	j.m[id] = job
	users.Go(func() {
		over := f(ctx)
		cancel()
		j.mu.Lock()
		defer j.mu.Unlock()
		job.cancel = nil
		if over {
			delete(j.m, id)
		}
		close(job.done)
	})
	return true
}

func (j *jobs) get(id string) (done <-chan struct{}, cancel func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	job := j.m[id]
	if job == nil || job.cancel == nil {
		return nil, nil
	}
	return job.done, job.cancel
}

// waitFor waits at most d for a job to end.
func (j *jobs) waitFor(ctx context.Context, id string, d time.Duration) {
	done, _ := j.get(id)
	if done == nil {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-ctx.Done():
	}
}

// stop ends a job and forgets it.
func (j *jobs) stop(ctx context.Context, id string) error {
	if done, cancel := j.get(id); done != nil {
		cancel()
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.m, id)
	return nil
}

// close ends all jobs; they go on when the pool is served again.
func (j *jobs) close() {
	j.mu.Lock()
	j.closed = true
	var running []*job
	for _, job := range j.m {
		if job.cancel != nil {
			job.cancel()
			running = append(running, job)
		}
	}
	j.mu.Unlock()
	for _, job := range running {
		<-job.done
	}
}

// resume goes on with a copy that an earlier process, or an earlier try, did not
// end.
func (b *Backend) resume(p *pool, s *set) {
	if s.meta.ready() || b.o.Half&ControllerHalf == 0 {
		return
	}
	own := p.newSet(s.parent, s.dir) // the caller's stays as it was read
	own.meta = s.meta
	b.startCopy(own, nil)
}

// startCopy copies the members of a set that are not whole. srcs are their
// images, locked; nil: they are to be opened. It closes them.
func (b *Backend) startCopy(s *set, srcs []*os.File) {
	var volumes []string
	for _, m := range s.meta.Members {
		volumes = append(volumes, m.VolumeID)
	}
	started := b.jobs.start(s.id(), volumes, &s.p.users, func(ctx context.Context) bool {
		defer closeAll(srcs)
		missing := backends.SnapshotNotFound(s.id())
		// What the caller read may be older than the end of the job before this
		// one, and a snapshot that is whole must not be measured by its source.
		err := s.read(missing)
		if errors.Is(err, backends.ErrNotFound) {
			return true
		}
		if err == nil {
			err = b.copyMembers(ctx, s, srcs)
		}
		switch {
		case err == nil:
			return true
		case errors.Is(err, errWritten), errors.Is(err, backends.ErrNotFound):
			// What is there by now is not what was to be kept. The CO asks again, and
			// gets a snapshot of that moment, with its time.
			b.log.Error("snapshot is lost: its volume was written to before it was copied", "id", s.id(), "err", err)
			name, err := b.trashSet(s, missing)
			if err != nil {
				b.log.Error("lost snapshot is not removed", "id", s.id(), "err", err)
				return errors.Is(err, backends.ErrNotFound)
			}
			b.purge(s.p, name)
			return true
		default:
			b.log.Warn("snapshot is not copied yet", "id", s.id(), "err", err)
			return false
		}
	})
	if !started {
		closeAll(srcs)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // read only, or synced
	}
}

func (b *Backend) copyMembers(ctx context.Context, s *set, srcs []*os.File) error {
	for i := range s.meta.Members {
		if s.meta.Members[i].Copy == nil {
			continue
		}
		var src *os.File
		if srcs != nil {
			src = srcs[i]
		}
		if err := b.copyMember(ctx, s, i, src); err != nil {
			return fmt.Errorf("copy volume %s: %w", s.meta.Members[i].VolumeID, err)
		}
	}
	return nil
}

// copyMember copies one member to the end and notes it.
func (b *Backend) copyMember(ctx context.Context, s *set, i int, src *os.File) error {
	m := &s.meta.Members[i]
	if src == nil {
		var err error
		if src, err = b.lockSource(ctx, s.p, m.VolumeID); err != nil {
			return err
		}
		defer func() { _ = src.Close() }() // nothing was written
	}
	before, err := stampOf(src)
	if err != nil {
		return err
	}
	if before.inode != m.Copy.Inode || !before.changed.Equal(m.Copy.Changed) {
		return errWritten
	}
	dst, err := s.p.root.OpenFile(s.at(s.file(*m)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = dst.Close() }() // synced where it matters
	b.step("loopfile.copy.start")
	err = copySparse(ctx, dst, src, m.Copy.Done, checkpoint{b.noteEvery, func(done int64) error {
		if err := dst.Sync(); err != nil {
			return err
		}
		m.Copy.Done = done
		b.step("loopfile.copy.part")
		return s.save()
	}})
	if err == nil {
		err = before.same(src)
	}
	if err = errors.Join(err, dst.Sync()); err != nil {
		return err
	}
	b.step("loopfile.copy.copied")
	m.Copy = nil
	return s.save()
}

// lockSource opens the image of a volume that nobody uses, and keeps it unused.
func (b *Backend) lockSource(ctx context.Context, p *pool, id string) (*os.File, error) {
	dir, err := p.decode(id)
	if err != nil {
		return nil, err
	}
	v, err := p.lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer v.unlock()
	img, err := v.openImg()
	if err != nil {
		return nil, err
	}
	if ok, err := tryShare(img); err != nil || !ok {
		_ = img.Close()
		return nil, errors.Join(err, fmt.Errorf("%w: %s is locked", backends.ErrInUse, v.path(imgFile)))
	}
	return img, nil
}
