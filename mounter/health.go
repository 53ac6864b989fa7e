package mounter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// What Health finds. Programs read these: docs/node.md lists them.
const (
	reasonRecord     = "NodeRecordUnreadable"
	reasonMountLost  = "MountLost"
	reasonRemounted  = "RemountedReadOnly"
	reasonReadOnly   = "FilesystemReadOnly"
	reasonSilent     = "NotAnswering"
	reasonFailing    = "FilesystemFailing"
	reasonShutDown   = "FilesystemShutdown"
	reasonErrors     = "FilesystemErrors"
	reasonDevErrors  = "DeviceErrors"
	reasonDevGone    = "DeviceGone"
	reasonDevOther   = "DeviceReplaced"
	reasonDevRead    = "DeviceReadFailed"
	reasonDevWrite   = "DeviceReadOnly"
	reasonDevSmaller = "DeviceTooSmall"
)

// Examiner is a [Kernel] that can tell how file systems and devices are. Its methods
// may hang.
type Examiner interface {
	// ExamineFS says what is wrong with the mounted file system; d is its device, nil
	// where it has none, or lost it.
	ExamineFS(ctx context.Context, d Device, m mnt.Info) ([]backends.Health, error)
	// ReadEnds reads from both ends of a device, past any cache.
	ReadEnds(ctx context.Context, d Device) error
}

// Health says what is wrong with a volume that stands on this node, as the kernel
// sees it; nothing, when it is well. It looks at every path of the volume, and at the
// device and the file system once. What may hang runs as in [Engine.Stats], in no
// more than Options.StatsTimeout; that it hangs is a finding. A volume that is not
// on record is backends.ErrNotFound.
func (e *Engine) Health(ctx context.Context, req HealthRequest) ([]backends.Health, error) {
	s := e.records()
	if s == nil {
		return nil, unavailable("the node engine is not running")
	}
	x := &examination{Engine: e, s: s, id: e.own(s, req.ID), asked: req.ID}
	if err := s.refused(req.ID); err != nil {
		x.add(backends.HealthDegraded, reasonRecord, "%v", err)
		return x.found, nil
	}
	all := s.of(x.id)
	if len(all) == 0 {
		return nil, backends.VolumeNotFound(req.ID)
	}
	err := x.run(ctx, slices.DeleteFunc(all, func(r *record) bool { return r.Phase != phaseReady || r.BootID != e.boot }))
	switch {
	case err == nil:
		return x.found, nil
	case len(x.found) > 0:
		e.log.WarnContext(ctx, "health of a volume is not known in full", "volume", req.ID, "err", err)
		return x.found, nil
	}
	return nil, fmt.Errorf("health of volume %q: %w", req.ID, err)
}

// examination is one Health.
type examination struct {
	*Engine
	s         *store
	id, asked string // the volume's own ID, and the CO's
	found     []backends.Health
	writable  bool // somebody is to write to the device
}

func (x *examination) add(status backends.HealthStatus, reason, format string, args ...any) {
	x.found = append(x.found, finding(status, reason, format, args...))
}

func finding(status backends.HealthStatus, reason, format string, args ...any) backends.Health {
	return backends.Health{Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (x *examination) run(ctx context.Context, ready []*record) error {
	atWork := x.atWork()
	var stage *record // through which the volume is looked at
	var top mnt.Info
	for _, r := range ready {
		m, is, err := x.mounted(r)
		switch {
		case err != nil:
			return err
		case !is && !atWork && x.still(r):
			x.add(backends.HealthInaccessible, reasonMountLost, "it is not mounted at %s any more: unmounted, or covered", r.Path)
		case is && !r.block():
			x.readOnly(r, m)
		}
		if r.Kind == kindStage && is && stage == nil {
			stage, top = r, m
		}
		x.writable = x.writable || !r.ReadOnly && (r.Kind == kindPublish || !r.block())
	}
	if stage == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, x.opts.StatsTimeout)
	defer cancel()
	if answers, err := x.answers(ctx, stage, top); !answers || err != nil {
		return err
	}
	return x.inside(ctx, stage, top)
}

// mounted is the mount of a record, if it stands. A staged block device has none.
func (x *examination) mounted(r *record) (m mnt.Info, is bool, err error) {
	if r.block() && r.Kind == kindStage {
		return m, true, nil
	}
	mounts, err := x.mountsAt(r.Path)
	if err != nil || len(mounts) == 0 {
		return m, false, err
	}
	return mounts[0], x.s.shows(r, mounts[0]), nil
}

// atWork reports whether a call is at work on the volume, which may unmount it.
func (x *examination) atWork() bool {
	return slices.ContainsFunc([]string{x.id, x.asked}, func(id string) bool { return x.locks.taken(volumeKey(id)) })
}

// still reports whether a record is to stand that did when it was read.
func (x *examination) still(r *record) bool {
	if x.atWork() {
		return false
	}
	now := x.s.get(r.Kind, r.Volume, r.Path)
	return now != nil && now.Phase == phaseReady
}

// readOnly finds a mount, or a whole file system, that is not writable any more.
// Since Linux 6.16 an ext4 that found an error stays writable for mount(8), and says
// so in a word of its own.
func (x *examination) readOnly(r *record, m mnt.Info) {
	for _, word := range []string{"shutdown", "emergency_ro", "ro"} {
		if slices.Contains(m.Super, word) && (word != "ro" || !r.ReadOnly) {
			if r.Kind == kindStage {
				x.add(backends.HealthInaccessible, reasonReadOnly, "the %s at %s is %q, as the kernel does after an error", m.FSType, r.Path, word)
			}
			return
		}
	}
	if slices.Contains(m.Options, "ro") && !r.ReadOnly {
		x.add(backends.HealthInaccessible, reasonRemounted, "somebody made the mount at %s read-only", r.Path)
	}
}

// answers asks the file system for its figures.
func (x *examination) answers(ctx context.Context, r *record, m mnt.Info) (bool, error) {
	if r.block() || x.features.StatsReporter != nil {
		return true, nil
	}
	_, err := x.fresh(ctx, r, r.Path, m.Dev)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errNoAnswer):
		x.silent("statfs", x.stats.age(statsKey(r.Volume, m.Dev)))
		return false, nil
	case ctx.Err() != nil:
		return false, err
	}
	x.add(backends.HealthInaccessible, reasonFailing, "%v", err)
	return true, nil
}

func (x *examination) silent(what string, age time.Duration) {
	x.add(backends.HealthInaccessible, reasonSilent, "%s has not come back for %s", what, age.Round(time.Millisecond))
}

// inside looks at the device and the file system.
func (x *examination) inside(ctx context.Context, r *record, m mnt.Info) error {
	k, ok := x.kernel.(Examiner)
	if !ok {
		return nil
	}
	dev := m.Dev
	if r.block() {
		dev = r.data().Num
	}
	key := statsKey(r.Volume, dev)
	found, err := x.health.get(ctx, key, x.patience(ctx, x.health.age(key)), func() ([]backends.Health, error) {
		return x.examine(context.WithoutCancel(ctx), k, r, m)
	})
	if errors.Is(err, errNoAnswer) {
		x.silent("a look at the device or its file system", x.health.age(key))
		return nil
	}
	x.found = append(x.found, found...)
	return err
}

// examine may hang. What it found is right whatever its error says.
func (x *examination) examine(ctx context.Context, k Examiner, r *record, m mnt.Info) (found []backends.Health, err error) {
	var data Device
	if r.Source == sourceDevice {
		for _, rec := range []*deviceRecord{r.Mapping, r.Device} {
			if rec == nil {
				continue
			}
			d, bad, look := x.examineDevice(ctx, k, rec)
			found, err = append(found, bad...), errors.Join(err, look)
			if d == nil {
				continue
			}
			defer func() { err = errors.Join(err, d.Close()) }()
			if rec == r.data() {
				data = d
			}
		}
	}
	if r.block() {
		return found, err
	}
	bad, look := k.ExamineFS(ctx, data, m)
	return append(found, bad...), errors.Join(err, look)
}

// examineDevice opens the device of a record, if it is there.
func (x *examination) examineDevice(ctx context.Context, k Examiner, r *deviceRecord) (d Device, bad []backends.Health, err error) {
	say := func(reason, format string, args ...any) {
		bad = append(bad, finding(backends.HealthInaccessible, reason, format, args...))
	}
	d, err = x.kernel.OpenDevice(ctx, r.Path)
	switch {
	case err == nil:
	case missing(err), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV), errors.Is(err, backends.ErrPrecondition):
		say(reasonDevGone, "%v", err)
		return nil, bad, nil
	case errors.Is(err, syscall.EIO):
		say(reasonDevRead, "%v", err)
		return nil, bad, nil
	default:
		return nil, nil, unavailable("%w", err)
	}
	size, err := d.Size()
	if err == nil && size > 0 {
		err = sameDevice(ctx, d, r)
	}
	switch {
	case err == nil && size == 0:
		say(reasonDevGone, "%s has no disk any more", r.Path)
	case errors.Is(err, backends.ErrPrecondition):
		say(reasonDevOther, "%v", err)
	case err != nil:
	default:
		return d, append(bad, x.examineDisk(ctx, k, d)...), nil
	}
	if final(err) {
		err = nil
	}
	return nil, bad, errors.Join(err, d.Close())
}

func (x *examination) examineDisk(ctx context.Context, k Examiner, d Device) (bad []backends.Health) {
	if err := k.ReadEnds(ctx, d); err != nil {
		bad = append(bad, finding(backends.HealthInaccessible, reasonDevRead, "%s: %v", d.Path(), err))
	}
	if ro, err := d.ReadOnly(); err == nil && ro && x.writable {
		bad = append(bad, finding(backends.HealthInaccessible, reasonDevWrite, "%s has become read-only", d.Path()))
	}
	return bad
}
