package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// A FUSE volume has a record that says "fuse" before its server is started, under
// the ID of the volume. The engine makes the mount, hands the descriptor over and
// keeps no copy: so the mount is dead, and seen to be, as soon as the server is. A
// mount is only the volume's when its server has answered.

// setFUSE records a FUSE source.
func (r *record) setFUSE(f *backends.FUSE) {
	r.Source = sourceFUSE
	r.Mount = &mountRecord{Source: f.Source, FSType: "fuse." + f.Subtype, Remote: true}
	r.Server = &serverRecord{}
}

// bringFUSE mounts a FUSE file system at the staging path and has it served.
func (s *staging) bringFUSE(ctx context.Context) error {
	f := s.src.FUSE
	var err error
	if s.rec.Server.Options, err = fuseOptions(f, s.req.Capability.Flags.Reveal()); err != nil {
		return err
	}
	for _, m := range s.src.IDMap {
		s.rec.Server.IDMap = append(s.rec.Server.IDMap, idMap(m))
	}
	if err := s.store.put(s.rec); err != nil {
		return err
	}
	s.fuse.remember(s.req.ID, f)
	if len(s.mounts) > 0 {
		if kept, err := s.keepFUSE(ctx); kept || err != nil {
			return err
		}
	}
	if err := s.makeStagingDir(); err != nil {
		return err
	}
	m, err := s.serve(ctx, s.rec, f)
	if err != nil {
		return err
	}
	if err := s.setGroup(ctx); err != nil {
		return err
	}
	return s.ready(mountedAs(m))
}

// keepFUSE takes over a mount of an earlier call if somebody serves it, and takes
// off one that never was, or not any more.
func (s *staging) keepFUSE(ctx context.Context) (kept bool, err error) {
	m := s.mounts[0]
	is, err := s.fromSource(m, s.path, s.rec)
	switch {
	case err != nil:
		return false, err
	case !is:
		return false, s.foreign()
	}
	err = s.answers(ctx, s.path, m.Dev, s.opts.ServerAnswer)
	switch {
	case err == nil:
		return true, s.keep(ctx)
	case !errors.Is(err, errDead) && (!s.known || !errors.Is(err, errNoAnswer)):
		return false, unavailable("it is mounted, and its server does not answer: %w", err)
	}
	if err := s.takeOffFUSE(s.path, m.Dev); err != nil {
		return false, err
	}
	s.mounts = nil
	return false, nil
}

// serve mounts at the staging path of r and starts a server, the only one of the
// volume. It returns when that has answered; on an error nothing is left. With f
// nil the host knows what to run.
func (e *Engine) serve(ctx context.Context, r *record, f *backends.FUSE) (mnt.Info, error) {
	k, ok := e.kernel.(FUSEKernel)
	if !ok || e.opts.Servers == nil {
		return mnt.Info{}, unavailable("it is a FUSE file system, and Options.Servers is not set")
	}
	if err := e.step(ctx, "mount "+r.Mount.FSType); err != nil {
		return mnt.Info{}, err
	}
	req := FUSEMountRequest{Source: r.Mount.Source, FSType: r.Mount.FSType, Target: r.Path, Options: r.Server.Options, ReadOnly: r.ReadOnly}
	for _, m := range r.Server.IDMap {
		req.IDMap = append(req.IDMap, backends.IDMap(m))
	}
	dev, err := k.MountFUSE(ctx, req)
	if err != nil {
		return mnt.Info{}, fmt.Errorf("mount %s (%s): %w", r.Mount.Source, r.Mount.FSType, err)
	}
	mounts, err := e.mountsAt(r.Path)
	if err == nil && len(mounts) == 0 {
		err = unavailable("the kernel shows no mount at %s after mounting it", r.Path)
	}
	if err != nil {
		return mnt.Info{}, errors.Join(err, dev.Close())
	}
	err = e.step(ctx, "start server")
	if err == nil {
		err = e.opts.Servers.Start(ctx, Server{ID: r.Volume, Device: dev, Run: f})
	}
	// The server's copies are the only ones from now on.
	if err = errors.Join(err, dev.Close()); err == nil {
		err = e.firstAnswer(ctx, r, mounts[0].Dev)
	}
	if err != nil {
		return mnt.Info{}, e.unserve(ctx, r, mounts[0].Dev, err)
	}
	return mounts[0], nil
}

// unserve undoes serve. What the host has to run with f nil it keeps.
func (e *Engine) unserve(ctx context.Context, r *record, dev uint64, err error) error {
	undo := e.takeOffFUSE(r.Path, dev)
	if !r.Server.Healing {
		// The server's end is not the caller's.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.ServerStart)
		defer cancel()
		undo = errors.Join(undo, e.stopServer(stop, r.Volume))
	}
	if undo != nil {
		return unavailable("%w (and it could not be undone: %w)", err, undo)
	}
	return err
}

const (
	dyingPause = 20 * time.Millisecond
	maxDying   = 50
)

// firstAnswer waits until a new server has answered.
func (e *Engine) firstAnswer(ctx context.Context, r *record, dev uint64) error {
	if err := e.step(ctx, "wait for server"); err != nil {
		return err
	}
	dying, end := 0, time.Now().Add(e.opts.ServerStart)
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := e.answers(ctx, r.Path, dev, wait)
		st, find := e.opts.Servers.Find(ctx, r.Volume)
		switch {
		case ctx.Err() != nil:
			return contextError(ctx)
		case find != nil:
			return unavailable("server of volume %q: %w", r.Volume, find)
		case err == nil && st.State != ServerRunning:
			return unavailable("the mount answers, and %s: it must stay in the foreground", st)
		case err == nil:
			return nil
		case st.State != ServerRunning && errors.Is(err, errNoAnswer) && time.Now().Before(end):
			continue // its descriptor goes in a moment, unless a child of it has one
		case errors.Is(err, errDead) && st.State == ServerRunning && dying < maxDying:
			dying++ // the host sees its end in a moment, and what it said
			if !sleep(ctx, dyingPause) {
				return contextError(ctx)
			}
		case !errors.Is(err, errNoAnswer):
			return unavailable("%w, and %s", err, st)
		case time.Now().After(end):
			return unavailable("its server has not answered for %v, and %s", e.opts.ServerStart, st)
		}
	}
}

// errDead is a FUSE mount whose server is gone.
var errDead = errors.New("nobody serves the mount any more")

// answers looks whether the server of the FUSE mount at path answers: nil, errDead or
// errNoAnswer. Whatever it answers is an answer.
func (e *Engine) answers(ctx context.Context, path string, dev uint64, wait time.Duration) error {
	_, err := e.fuse.probes.get(ctx, fmt.Sprintf("%d %s", dev, path), wait, func() (struct{}, error) {
		_, err := e.kernel.StatFS(path)
		return struct{}{}, err
	})
	var asked *fs.PathError
	switch {
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.ECONNREFUSED):
		return errDead // refused: it ended after it had read the kernel's first request
	case err == nil, errors.Is(err, errNoAnswer):
		return err
	case ctx.Err() != nil:
		return contextError(ctx)
	case errors.As(err, &asked) && asked.Op == "statfs":
		return nil
	}
	return fmt.Errorf("%w: it could not be asked: %w", errNoAnswer, err)
}

// takeOffFUSE takes a mount with this device number off path that nobody serves,
// or nobody shall serve. Nothing can be written by it any more, so that it does not
// matter who still has it open.
func (e *Engine) takeOffFUSE(path string, dev uint64) error {
	k, ok := e.kernel.(FUSEKernel)
	if !ok {
		return unavailable("the kernel in Options.Kernel cannot take off a FUSE mount")
	}
	var abort error
	for i := range 2 * maxDeadStack {
		mounts, err := e.mountsAt(path)
		if err != nil {
			return err
		}
		if len(mounts) == 0 || mounts[0].Dev != dev {
			return nil
		}
		if i%2 == 0 { // which may take it off, too
			abort = k.AbortFUSE(path, dev)
		} else if _, err := k.Detach(path); err != nil {
			return unavailable("%w", errors.Join(err, abort))
		}
	}
	return unavailable("more than %d mounts at %s", maxDeadStack, path)
}

const maxDeadStack = 64

// abortSilent reports whether a mount that could not be taken off may come off
// now: it is a FUSE mount whose server does not answer, so that whoever waits for
// it, a look of the engine's own too, keeps it busy. They get an error, and what the
// server was not given yet is lost.
func (e *Engine) abortSilent(ctx context.Context, path string, top mnt.Info, why error) bool {
	k, ok := e.kernel.(FUSEKernel)
	if !ok || !isFUSE(top.FSType) || ctx.Err() != nil {
		return false
	}
	err := e.answers(ctx, path, top.Dev, e.opts.ServerAnswer)
	if !errors.Is(err, errNoAnswer) && !errors.Is(err, errDead) {
		return false
	}
	e.log.WarnContext(ctx, "mount does not come off and its server does not answer; its connection is ended", "path", path, "mount", describeMount(top), "err", why)
	if err := k.AbortFUSE(path, top.Dev); err != nil {
		e.log.WarnContext(ctx, "connection could not be ended", "path", path, "err", err)
		return false
	}
	return true
}

func isFUSE(fsType string) bool { return fsType == "fuse" || len(fsType) > 5 && fsType[:5] == "fuse." }

// stopServer ends the server of a volume whose mounts are gone.
func (e *Engine) stopServer(ctx context.Context, id string) error {
	if e.opts.Servers == nil {
		return unavailable("it is a FUSE file system, and Options.Servers is not set")
	}
	if err := e.step(ctx, "stop server"); err != nil {
		return err
	}
	if err := e.opts.Servers.Stop(ctx, id); err != nil {
		return unavailable("stop server: %w", err)
	}
	e.fuse.forget(id)
	return nil
}

// stopLeftServer ends the server of a volume of which there is no record, if there
// is one.
func (e *Engine) stopLeftServer(ctx context.Context, id string) error {
	if e.opts.Servers == nil {
		return nil
	}
	return e.stopServer(ctx, id)
}

// remember keeps what a server was started with, for the next one.
func (f *serving) remember(id string, run *backends.FUSE) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run == nil {
		f.run = map[string]*backends.FUSE{}
	}
	f.run[id] = run
}

func (f *serving) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.run, id)
}

func (f *serving) remembered(id string) *backends.FUSE {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.run[id]
}
