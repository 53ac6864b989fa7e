package mounter

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/csikit/csikit/backends"
)

// Start takes the state directory, reads the records, finishes what an earlier
// process left half-done, and tells the backend what is open here
// (backends.NodeRecoverer). It comes before every other call.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.start(ctx); err != nil {
		return fmt.Errorf("mounter: %w", err)
	}
	return nil
}

func (e *Engine) start(ctx context.Context) error {
	if e.records() != nil {
		return refuse("the engine runs already")
	}
	s, err := e.openState()
	if err != nil {
		return err
	}
	if err := e.recoverAll(ctx, s); err != nil {
		return errors.Join(err, s.close())
	}
	e.mu.Lock()
	e.store = s
	e.mu.Unlock()
	e.fuse.begin(e)
	return nil
}

// openState checks and locks the state directory.
func (e *Engine) openState() (*store, error) {
	dir := e.opts.StateDir
	if err := makeStateDir(dir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if !e.opts.AllowVolatileState {
		why, err := e.kernel.Volatile(dir)
		if err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		if why != "" {
			return nil, refuse("state directory %s lies on %s, and the records must outlive the container: "+
				"give a directory of the host's own disk", dir, why)
		}
	}
	for _, d := range e.opts.SharedDirs {
		shared, err := e.kernel.Shared(d)
		if err != nil {
			return nil, fmt.Errorf("propagation of %s: %w", d, err)
		}
		if !shared {
			return nil, refuse("mounts below %s do not reach the host (mountPropagation: Bidirectional): pods would see empty directories", d)
		}
	}
	return openStore(dir)
}

func (e *Engine) recoverAll(ctx context.Context, s *store) error {
	boot, err := e.kernel.BootID()
	if err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	e.boot = boot
	for _, err := range s.unreadable() {
		e.log.ErrorContext(ctx, "the volume of this record is left alone", "err", err)
	}
	for _, ephemeral := range []bool{false, true} { // whose volumes are closed by then
		for _, r := range s.list(func(r *record) bool { return (r.Kind == kindEphemeral) == ephemeral }) {
			if err := e.recoverGuarded(ctx, s, r); err != nil {
				// Without room for it the record stays as it was, and its boot id says
				// that nothing of it stands. Whatever frees room needs this engine.
				e.log.ErrorContext(ctx, "record is not brought up to date", "volume", r.Volume, "path", r.Path, "err", err)
			}
		}
	}
	e.dropAllBeside(ctx)
	if x := e.features.NodeRecoverer; x != nil {
		open, err := e.openVolumes(s)
		if err != nil {
			return err
		}
		if err := x.RecoverNode(ctx, open); err != nil {
			return fmt.Errorf("recover node: %w", err)
		}
	}
	return nil
}

// recoverGuarded is recoverRecord over a backend that may panic: the node's other
// volumes need the driver, which would come back to the same record for ever.
func (e *Engine) recoverGuarded(ctx context.Context, s *store, r *record) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return e.recoverRecord(ctx, s, r)
}

// recoverRecord brings one record up to date with the boot and with what was
// finished all but the record.
func (e *Engine) recoverRecord(ctx context.Context, s *store, r *record) error {
	rebooted := r.BootID != e.boot
	switch {
	case r.Kind == kindPublish && rebooted:
		return s.remove(r) // binds do not outlive a boot
	case r.Kind == kindPublish:
		return e.recoverTarget(s, r)
	case r.Kind == kindEphemeral:
		return e.recoverEphemeral(ctx, s, r, rebooted)
	case r.Phase == phaseClosing:
		if err := e.closeVolume(ctx, s, r); err != nil {
			// The CO was told nothing yet: it calls Unstage again.
			e.log.WarnContext(ctx, "volume could not be closed; unstaging it tries again", "volume", r.Volume, "path", r.Path, "err", err)
		}
	case rebooted:
		e.log.InfoContext(ctx, "volume was staged before a reboot", "volume", r.Volume, "path", r.Path)
		r.BootID, r.Phase, r.Mounted, r.Mapping, r.Rebooted = e.boot, phaseOpening, nil, nil, true
		if r.Device != nil {
			r.Device.Num, r.Device.DiskSeq = 0, 0
		}
		return s.put(r)
	}
	return nil
}

// recoverEphemeral goes on deleting what was being deleted. All else the CO knows
// of: it publishes again, or unpublishes.
func (e *Engine) recoverEphemeral(ctx context.Context, s *store, r *record, rebooted bool) error {
	if rebooted {
		r.BootID = e.boot
		if err := s.put(r); err != nil {
			return err
		}
	}
	if r.Phase != phaseDeleting {
		return nil
	}
	if err := e.unpublishEphemeral(ctx, s, r); err != nil {
		// The CO was told nothing yet: it calls Unpublish again.
		e.log.WarnContext(ctx, "ephemeral volume could not be deleted; unpublishing it tries again", "volume", r.Volume, "path", r.Path, "err", err)
	}
	return nil
}

// recoverTarget drops the record of a target that was never bound, or that is
// unmounted and removed already.
func (e *Engine) recoverTarget(s *store, r *record) error {
	_, err := e.kernel.IsMountPoint(r.Path)
	if missing(err) && !r.block() {
		return s.remove(r)
	}
	return nil
}

// openVolumes is what the records have open, for the backend.
func (e *Engine) openVolumes(s *store) ([]backends.OpenVolume, error) {
	var open []backends.OpenVolume
	at := map[string]int{}
	note := func(id string, state []byte, ephemeral bool) *backends.OpenVolume {
		i, known := at[id]
		if !known {
			i = len(open)
			at[id] = i
			open = append(open, backends.OpenVolume{ID: id, State: state})
		}
		open[i].Ephemeral = open[i].Ephemeral || ephemeral
		return &open[i]
	}
	for _, r := range s.list(func(r *record) bool { return r.Kind == kindStage }) {
		_, live, err := e.alive(s, r)
		if err != nil {
			return nil, err
		}
		v := note(r.Volume, r.State, r.For != "")
		v.Mounted = v.Mounted || live
	}
	for _, r := range s.list(func(r *record) bool { return r.Own != "" }) {
		note(r.Own, r.State, true) // made, and perhaps opened
	}
	return open, nil
}
