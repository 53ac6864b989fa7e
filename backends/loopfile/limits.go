package loopfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
)

// limit makes the limits of a locked volume those of its loop device.
func (b *Backend) limit(v *volume, s *state) error {
	l, err := iolimit.Parse(v.meta.Mutable)
	if err != nil {
		return fmt.Errorf("%w: %s: %s", backends.ErrPrecondition, v.path(metaFile), err.Error())
	}
	if err := iolimit.Apply(b.throttle, l, numberOf(s.Loop)); err != nil {
		return fmt.Errorf("I/O limits of volume %s: %w", v.id, err)
	}
	return nil
}

func numberOf(loop string) func() (string, error) {
	return func() (string, error) { return iolimit.Number(loop) }
}

// lift takes the limits from a loop device that is about to be detached.
func (b *Backend) lift(path string) (restore func()) {
	return iolimit.Lift(b.throttle, b.log, path, numberOf(path))
}

// ModifyVolume changes the limits of a volume: durably, and at once where it is
// open. What it refuses it has not applied.
func (b *Backend) ModifyVolume(ctx context.Context, req backends.ModifyVolumeRequest) error {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return err
	}
	defer done()
	if _, err := iolimit.Parse(req.Mutable); err != nil {
		return err
	}
	dir, err := p.decode(req.ID)
	if err != nil {
		return err
	}
	v, err := p.lock(ctx, dir)
	if err != nil {
		return err
	}
	defer v.unlock()
	m := *v.meta
	m.Mutable = maps.Clone(m.Mutable)
	if m.Mutable == nil {
		m.Mutable = map[string]string{}
	}
	maps.Copy(m.Mutable, req.Mutable)
	if err := b.canLimit(m.Mutable); err != nil {
		return fmt.Errorf("modify volume %s: %w", v.id, err)
	}
	if !maps.Equal(m.Mutable, v.meta.Mutable) {
		if err := v.saveMeta(m); err != nil {
			return classify(err)
		}
	}
	b.step("loopfile.modify.saved")
	s, err := b.loopNow(ctx, v)
	if s == nil || err != nil {
		return err
	}
	// Also when nothing changed: the process may have died between the two.
	return b.limit(v, s)
}

// canLimit refuses limits that nothing here would keep anybody to.
func (b *Backend) canLimit(mutable map[string]string) error {
	l, err := iolimit.Parse(mutable)
	if err != nil {
		return err
	}
	return iolimit.Can(b.throttle, l)
}

// loopNow is the loop device that a locked volume is attached to; nil: none.
func (b *Backend) loopNow(ctx context.Context, v *volume) (*state, error) {
	s, err := b.attached(ctx, v, nil)
	if errors.Is(err, backends.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return nil, nil // no loop devices here: none is ours
	}
	return s, err
}
