package loopfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// limitParam is a mutable parameter, named as docker's --device-read-bps is, and
// what the kernel calls it in io.max.
type limitParam struct {
	name, key string
	least     uint64
	most      uint64
	doc       string
}

// Below the least a mount of the volume would take minutes, for as long as which
// nobody could stop it: it is a number without its unit.
const (
	leastBPS  = 64 << 10
	leastIOPS = 10
	mostIOPS  = 1<<32 - 2 // the kernel's next one is "max"
)

var limitParams = [...]limitParam{
	{"read-bps", "rbps", leastBPS, maxSize, "bytes a second that may be read (" + rateRule + ")"},
	{"write-bps", "wbps", leastBPS, maxSize, "bytes a second that may be written (" + rateRule + ")"},
	{"read-iops", "riops", leastIOPS, mostIOPS, "reads a second (max or 0: no limit)"},
	{"write-iops", "wiops", leastIOPS, mostIOPS, "writes a second (max or 0: no limit)"},
}

const rateRule = "10485760, 10Mi, 10M; max or 0: no limit"

// limits of a volume in the order of limitParams; 0: none.
type limits [len(limitParams)]uint64

func limitIndex(name string) int {
	return slices.IndexFunc(limitParams[:], func(p limitParam) bool { return p.name == name })
}

// limitParameters are the limits as csikit and users know them.
func limitParameters() []backends.Parameter {
	var list []backends.Parameter
	for _, p := range limitParams {
		list = append(list, backends.Parameter{Name: p.name, Doc: p.doc, Mutable: true})
	}
	return list
}

// limitsOf reads the mutable parameters of a volume.
func limitsOf(mutable map[string]string) (l limits, err error) {
	for _, k := range slices.Sorted(maps.Keys(mutable)) {
		i := limitIndex(k)
		if i < 0 {
			return limits{}, fmt.Errorf("%w: parameter %q is not one that can be modified", backends.ErrInvalid, k)
		}
		if l[i], err = limitParams[i].parse(mutable[k]); err != nil {
			return limits{}, err
		}
	}
	return l, nil
}

func (p *limitParam) parse(s string) (uint64, error) {
	if s == "max" || s == "0" {
		return 0, nil
	}
	digits, unit := s, uint64(1)
	if p.least == leastBPS {
		digits, unit = splitUnit(s)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: parameter %s %q: want %s", backends.ErrInvalid, p.name, s, p.doc)
	}
	if n > p.most/unit || n*unit < p.least {
		return 0, fmt.Errorf("%w: parameter %s %q: want %d to %d, or max", backends.ErrInvalid, p.name, s, p.least, p.most)
	}
	return n * unit, nil
}

// splitUnit knows the units of a quantity of Kubernetes.
func splitUnit(s string) (digits string, unit uint64) {
	unit, binary := 1, uint64(1)
	for _, letter := range []string{"k", "M", "G", "T"} {
		unit, binary = unit*1000, binary<<10
		if d, ok := strings.CutSuffix(s, strings.ToUpper(letter)+"i"); ok {
			return d, binary
		}
		if d, ok := strings.CutSuffix(s, letter); ok {
			return d, unit
		}
	}
	return s, 1
}

// String is what is written to io.max behind the device: every limit, so that none
// stays of the volume that the loop device had before.
func (l limits) String() string {
	var s []string
	for i, p := range limitParams {
		v := "max"
		if l[i] != 0 {
			v = strconv.FormatUint(l[i], 10)
		}
		s = append(s, p.key+"="+v)
	}
	return strings.Join(s, " ")
}

// throttle is what keeps processes within limits. It is the kernel's; tests have
// another.
type throttle interface {
	// check says ErrPrecondition when nothing can be limited.
	check() error
	// get and set the limits of a device, "7:0".
	get(dev string) (limits, error)
	set(dev string, l limits) error
}

// limit makes the limits of a locked volume those of its loop device.
func (b *Backend) limit(v *volume, s *state) error {
	l, err := limitsOf(v.meta.Mutable)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %s", backends.ErrPrecondition, v.path(metaFile), err.Error())
	case b.throttle == nil && l != limits{}:
		return fmt.Errorf("%w: volume %s has I/O limits, and Options.Cgroup is not set", backends.ErrPrecondition, v.id)
	case b.throttle == nil:
		return nil
	}
	if err := b.throttle.check(); err != nil {
		if l == (limits{}) {
			return nil // and so there are none
		}
		return fmt.Errorf("I/O limits of volume %s: %w", v.id, err)
	}
	dev, err := loopNumber(s.Loop)
	if err != nil {
		return unavailable("number of "+s.Loop, err)
	}
	if have, err := b.throttle.get(dev); err == nil && have == l {
		return nil
	}
	if err := b.throttle.set(dev, l); err != nil {
		return unavailable("I/O limits of volume "+v.id, err)
	}
	return nil
}

// lift takes the limits from a loop device that is about to be detached: the next
// one to have it is somebody else. restore gives them back if it stays. A failure
// is no reason to keep a volume open.
func (b *Backend) lift(path string) (restore func()) {
	restore = func() {}
	if b.throttle == nil || b.throttle.check() != nil {
		return restore
	}
	dev, err := loopNumber(path)
	var had limits
	if err == nil {
		had, err = b.throttle.get(dev)
	}
	if err == nil && had != (limits{}) {
		err = b.throttle.set(dev, limits{})
		restore = func() {
			if err := b.throttle.set(dev, had); err != nil {
				b.log.Error("I/O limits of a volume that stays open are lost", "loop", path, "err", err)
			}
		}
	}
	if err != nil {
		b.log.Error("I/O limits are not taken from a loop device", "loop", path, "err", err)
	}
	return restore
}

// ModifyVolume changes the limits of a volume: durably, and at once where it is
// open. What it refuses it has not applied.
func (b *Backend) ModifyVolume(ctx context.Context, req backends.ModifyVolumeRequest) error {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return err
	}
	defer done()
	if _, err := limitsOf(req.Mutable); err != nil {
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
	l, err := limitsOf(mutable)
	if err != nil || l == (limits{}) {
		return err
	}
	if b.throttle == nil {
		return fmt.Errorf("%w: I/O limits need Options.Cgroup", backends.ErrInvalid)
	}
	return b.throttle.check()
}

// loopNow is the loop device that a locked volume is attached to; nil: none.
func (b *Backend) loopNow(ctx context.Context, v *volume) (*state, error) {
	s, err := b.attached(ctx, v, nil)
	if errors.Is(err, backends.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return nil, nil // no loop devices here: none is ours
	}
	return s, err
}
