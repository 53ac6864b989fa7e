package loopfile

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// Reasons of adverse conditions.
const (
	reasonShort    = "BackingFileShort"
	reasonMissing  = "BackingFileMissing"
	reasonMeta     = "MetadataUnreadable"
	reasonReadOnly = "PoolReadOnly"
	reasonFull     = "PoolFull"
	reasonDetached = "LoopDeviceLost"
	reasonShut     = "FilesystemReadOnly"
	reasonLimits   = "LimitsNotApplied"
)

// VolumeHealth says what is wrong with a volume: its file, its meta, its pool.
func (b *Backend) VolumeHealth(_ context.Context, req backends.VolumeRequest) ([]backends.Health, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, err
	}
	defer done()
	dir, err := p.decode(req.ID)
	if err != nil {
		return nil, err
	}
	pool, err := b.poolHealth(p)
	if err != nil {
		return nil, err
	}
	return b.volumeHealth(p, dir, pool)
}

// poolHealth is what is wrong with the pool, and with volumes through it.
type poolHealth struct {
	readOnly bool
	full     string // a message; "": it is not
}

// poolShut says whether the kernel shut the pool's file system after an error.
func poolShut(p *pool) (bool, error) {
	root, err := p.root.Stat(".")
	if err != nil {
		return false, unavailable(p.dir, err)
	}
	all, err := mnt.List()
	if err != nil {
		return false, unavailable("mountinfo", err)
	}
	return slices.ContainsFunc(all, func(m mnt.Info) bool {
		return m.Dev == device(root) && slices.ContainsFunc(m.Super, isShut)
	}), nil
}

// fullBelow is what a pool must have free for volumes to be written to that have
// no space of their own: little, because the reserve may be meant for just that.
const fullBelow = 1 << 20

func (b *Backend) poolHealth(p *pool) (h poolHealth, err error) {
	f, err := p.facts()
	if err != nil {
		return h, unavailable(p.dir, err)
	}
	b.shared.load(p)
	if h.readOnly, err = poolShut(p); err != nil {
		return h, err
	}
	h.readOnly = h.readOnly || f.ReadOnly
	if f.Free < fullBelow {
		h.full = fmt.Sprintf("%s has %d of %d bytes left", p.dir, f.Free, f.Total)
	}
	return h, nil
}

// volumeHealth is what is wrong with the volume in a directory of v.
func (b *Backend) volumeHealth(p *pool, dir string, pool poolHealth) ([]backends.Health, error) {
	v, err := p.volume(dir)
	if errors.Is(err, backends.ErrNotFound) {
		return nil, err
	}
	if err != nil {
		return []backends.Health{b.unreadable(p, dir, err)}, nil
	}
	var bad []backends.Health
	add := func(status backends.HealthStatus, reason, message string) {
		bad = append(bad, backends.Health{Status: status, Reason: reason, Message: message})
	}
	if err := v.damaged(); err != nil {
		add(backends.HealthDataLoss, reasonShort, err.Error())
	}
	if pool.readOnly {
		add(backends.HealthInaccessible, reasonReadOnly, p.dir+" is on a file system that is mounted read-only")
	}
	// A thick volume has its space, unless it shares it.
	if pool.full != "" && v.img.Size()-allocated(v.img)+b.shared.bytes(p, dir) > 0 {
		add(backends.HealthInaccessible, reasonFull, pool.full)
	}
	return bad, nil
}

// unreadable says what is wrong with a volume that is there and cannot be read.
func (b *Backend) unreadable(p *pool, dir string, err error) backends.Health {
	img := (&volume{p: p, dir: dir}).path(imgFile)
	if _, missing := p.root.Lstat(volumesDir + "/" + dir + "/" + imgFile); notExist(missing) {
		return backends.Health{Status: backends.HealthDataLoss, Reason: reasonMissing, Message: img + " does not exist"}
	}
	return backends.Health{Status: backends.HealthInaccessible, Reason: reasonMeta, Message: err.Error()}
}

// ListVolumeHealth lists the volumes with which something is wrong, by ID.
func (b *Backend) ListVolumeHealth(ctx context.Context, req backends.ListVolumeHealthRequest) ([]backends.VolumeHealth, string, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, "", err
	}
	defer done()
	dirs, err := p.volumesAfter(b, req.Page.Token)
	if err != nil {
		return nil, "", err
	}
	pool, err := b.poolHealth(p)
	if err != nil {
		return nil, "", err
	}
	var list []backends.VolumeHealth
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return nil, "", context.Cause(ctx)
		}
		bad, err := b.volumeHealth(p, dir, pool)
		if len(bad) == 0 || err != nil {
			continue // well, or deleted meanwhile
		}
		if req.Page.Limit > 0 && len(list) == req.Page.Limit {
			return list, list[len(list)-1].ID, nil
		}
		list = append(list, backends.VolumeHealth{ID: makeID(p.info.Name, dir), Health: bad})
	}
	return list, "", nil
}

// NodeVolumeHealth is VolumeHealth, and what only this node sees: whether the
// loop device is still there, and the file system writable. It looks at the
// kernel's tables and touches no path of the volume.
func (b *Backend) NodeVolumeHealth(ctx context.Context, req backends.NodeHealthRequest) ([]backends.Health, error) {
	bad, err := b.VolumeHealth(ctx, backends.VolumeRequest{ID: req.ID})
	if err != nil {
		return nil, err
	}
	s, err := decodeState(req.State)
	if err != nil || s == nil {
		return bad, err
	}
	is, err := blockdev.LoopIs(s.Loop, s.Dev, s.Ino)
	if err != nil {
		return nil, unavailable(s.Loop, err)
	}
	if !is {
		return append(bad, backends.Health{
			Status: backends.HealthInaccessible, Reason: reasonDetached,
			Message: fmt.Sprintf("%s is not attached to the volume's file any more", s.Loop),
		}), nil
	}
	if l := b.unlimited(req.ID, s); l != nil {
		bad = append(bad, *l)
	}
	shut, err := shutDown(ctx, s.Loop)
	if err != nil {
		return nil, err
	}
	if shut != "" {
		bad = append(bad, backends.Health{
			Status: backends.HealthInaccessible, Reason: reasonShut,
			Message: fmt.Sprintf("the file system at %s was made read-only, as the kernel does after an error", shut),
		})
	}
	return bad, nil
}

// shutDown is a mount that is meant to be writable of a file system that is not.
func shutDown(ctx context.Context, loop string) (path string, err error) {
	d, err := blockdev.Open(ctx, loop, false)
	if err != nil {
		return "", unavailable(loop, err)
	}
	num := d.Num()
	if err := d.Close(); err != nil {
		return "", unavailable(loop, err)
	}
	all, err := mnt.List()
	if err != nil {
		return "", unavailable("mountinfo", err)
	}
	for _, m := range all {
		// What was mounted read-only says so in both places.
		if (m.Dev == num || m.Source == loop) && !slices.Contains(m.Options, "ro") && slices.ContainsFunc(m.Super, isShut) {
			return m.Point, nil
		}
	}
	return "", nil
}

// isShut knows what a file system shows after an error: since Linux 6.16 ext4
// stays writable for mount(8), and says so.
func isShut(option string) bool {
	return option == "ro" || option == "emergency_ro" || option == "shutdown"
}

// unlimited says whether the limits of an open volume hold: a cgroup that was made
// anew has none.
func (b *Backend) unlimited(id string, s *state) *backends.Health {
	if b.throttle == nil {
		return nil
	}
	p, done, err := b.enter(NodeHalf)
	if err != nil {
		return nil // VolumeHealth's to say
	}
	defer done()
	dir, err := p.decode(id)
	if err != nil {
		return nil
	}
	v, err := p.volume(dir)
	if err != nil {
		return nil
	}
	dev, err := iolimit.Number(s.Loop)
	if err != nil {
		return nil
	}
	want, _ := iolimit.Parse(v.meta.Mutable) // decodeMeta knows them
	have, err := b.throttle.Get(dev)
	text := fmt.Sprintf("has %q", have)
	if err != nil {
		text = err.Error()
	} else if have == want {
		return nil
	}
	if want == (iolimit.Limits{}) {
		return nil
	}
	return &backends.Health{
		Status: backends.HealthDegraded, Reason: reasonLimits,
		Message: fmt.Sprintf("%s is to have %q in cgroup %s: %s; restart the driver, or modify the volume", s.Loop, want, b.o.Cgroup, text),
	}
}
