package lvm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/luks"
)

// What can be modified besides the I/O limits is what lvchange does to an LV in use
// in one change of the metadata, and takes back as well. Layouts are not among it: a
// leg that lvconvert takes off goes back to the VG with its data on it.
const (
	paramReadAhead = "read-ahead" // kept by lvm with the LV
	paramResync    = "resync-bps" // of RAID: what a repair may take of each disk
)

const (
	leastReadAhead = 4 << 10
	mostReadAhead  = 64 << 20
	leastResync    = 64 << 10
)

func hasRAID(classes []Class) bool {
	return slices.ContainsFunc(classes, func(c Class) bool { return c.raid() })
}

func mutableParameters(o Options) []backends.Parameter {
	list := []backends.Parameter{{
		Name: paramReadAhead, Mutable: true,
		Doc: "bytes that the kernel reads ahead (131072, 1Mi; auto: lvm's choice, 0: none)",
	}}
	if hasRAID(o.Classes) {
		list = append(list, backends.Parameter{
			Name: paramResync, Mutable: true,
			Doc: "bytes a second that the repair of a RAID volume may write to each disk (10485760, 10Mi; max or 0: no limit)",
		})
	}
	if o.Cgroup != "" {
		list = append(list, iolimit.Parameters()...)
	}
	return list
}

func (b *Backend) isMutable(name string) bool {
	return slices.ContainsFunc(mutableParameters(b.o), func(p backends.Parameter) bool { return p.Name == name })
}

// params are what the parameters say of a volume that is to be made: what the
// mutable ones say goes before what the others do.
func (b *Backend) params(params, mutable map[string]string) (*meta, *Class, error) {
	c, err := b.class(params)
	if err != nil {
		return nil, nil, err
	}
	m := &meta{Mutable: map[string]string{}}
	for k, v := range params {
		switch {
		case k == luks.Param:
			if m.Encrypted, err = luks.Parse(v); err != nil {
				return nil, nil, err
			}
		case b.isMutable(k):
			m.Mutable[k] = v
		}
	}
	maps.Copy(m.Mutable, mutable)
	_, err = b.changes(c, m.Mutable)
	return m, c, err
}

// changes are the options of lvcreate and lvchange for mutable parameters; an error
// when one of them is wrong.
func (b *Backend) changes(c *Class, mutable map[string]string) (args []string, err error) {
	limits := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(mutable)) {
		v := mutable[k]
		var arg []string
		switch {
		case !b.isMutable(k):
			err = fmt.Errorf("%w: parameter %q is not mutable", backends.ErrInvalid, k)
		case k == paramReadAhead:
			arg, err = readAhead(v)
		case k == paramResync && !c.raid():
			err = fmt.Errorf("%w: parameter %s is for RAID, and class %s is %s", backends.ErrInvalid, k, c.Name, c.Profile)
		case k == paramResync:
			arg, err = resync(v)
		default:
			limits[k] = v
		}
		if err != nil {
			return nil, err
		}
		args = append(args, arg...)
	}
	_, err = iolimit.Parse(limits)
	return args, err
}

func readAhead(v string) ([]string, error) {
	switch v {
	case "auto":
		return []string{"--readahead", "auto"}, nil
	case "0", "none":
		return []string{"--readahead", "none"}, nil
	}
	n, err := iolimit.Bytes(v)
	if err != nil || n < leastReadAhead || n > mostReadAhead || n%leastReadAhead != 0 {
		return nil, fmt.Errorf("%w: parameter %s %q: want auto, 0, or a multiple of %d up to %d", backends.ErrInvalid, paramReadAhead, v, leastReadAhead, mostReadAhead)
	}
	return []string{"--readahead", strconv.FormatUint(n/512, 10)}, nil
}

func resync(v string) ([]string, error) {
	if v == "0" || v == "max" {
		return []string{"--maxrecoveryrate", "0"}, nil
	}
	n, err := iolimit.Bytes(v)
	if err != nil || n < leastResync || n > maxSize {
		return nil, fmt.Errorf("%w: parameter %s %q: want max, or %d and more", backends.ErrInvalid, paramResync, v, leastResync)
	}
	return []string{"--maxrecoveryrate", strconv.FormatUint(n/1024, 10) + "k"}, nil
}

// limits are those of mutable parameters that were checked before.
func limits(mutable map[string]string) iolimit.Limits {
	only := maps.Clone(mutable)
	maps.DeleteFunc(only, func(k, _ string) bool { return !iolimit.Is(k) })
	l, _ := iolimit.Parse(only) // a tag that somebody else wrote limits nothing
	return l
}

// canLimit refuses limits that nothing here would keep anybody to.
func (b *Backend) canLimit(mutable map[string]string) error {
	return iolimit.Can(b.throttle, limits(mutable))
}

// publicMutable is Volume.Mutable.
func publicMutable(m *meta) map[string]string {
	all := map[string]string{}
	maps.Copy(all, m.Mutable)
	return all
}

// ModifyVolume changes what can be of a volume in use: in one change of lvm's
// metadata, and at once where it is open. What it refuses it has not applied.
func (b *Backend) ModifyVolume(ctx context.Context, req backends.ModifyVolumeRequest) error {
	if err := b.serves(ControllerHalf); err != nil {
		return err
	}
	c, _, err := b.locate(req.ID, kindVolume)
	if err != nil {
		return err
	}
	args, err := b.changes(c, req.Mutable)
	if err != nil {
		return err
	}
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	c, v, err := b.peekReady(ctx, req.ID)
	if err != nil {
		return err
	}
	all := publicMutable(v.own)
	maps.Copy(all, req.Mutable)
	if err := b.canLimit(all); err != nil {
		return fmt.Errorf("modify volume %s: %w", req.ID, err)
	}
	if !maps.Equal(all, v.own.Mutable) {
		tags := append(mutableArgs(v.own.Mutable, all), v.path())
		err := b.tool.change(ctx, c.VG, append(append([]string{"lvchange"}, args...), tags...)...)
		if said(err, "is already") { // lvm does nothing, then: it was so without a tag
			err = b.tool.change(ctx, c.VG, append([]string{"lvchange"}, tags...)...)
		}
		if err != nil {
			return classify(fmt.Errorf("modify volume %s: %w", req.ID, err))
		}
	}
	b.step("modify:saved")
	// Also when nothing changed: the process may have died between the two.
	return b.limitNow(v, all)
}

// mutableArgs change the tags from what was asked for to what is.
func mutableArgs(was, is map[string]string) (args []string) {
	for _, k := range slices.Sorted(maps.Keys(is)) {
		old, had := was[k]
		if had && old == is[k] {
			continue
		}
		if had {
			args = append(args, delTags(mutableTag(k, old))...)
		}
		args = append(args, addTags(mutableTag(k, is[k]))...)
	}
	return args
}

// limitNow makes the limits of a volume those of its device, where there is one.
func (b *Backend) limitNow(v *volume, mutable map[string]string) error {
	path, err := b.kernel.device(v.dmUUID())
	if path == "" || err != nil {
		return err
	}
	return b.limit(v, path, mutable)
}

func (b *Backend) limit(v *volume, path string, mutable map[string]string) error {
	if err := iolimit.Apply(b.throttle, limits(mutable), b.numberOf(path)); err != nil {
		return fmt.Errorf("I/O limits of volume %s: %w", v.id(), err)
	}
	return nil
}

func (b *Backend) numberOf(path string) func() (string, error) {
	return func() (string, error) { return b.kernel.number(path) }
}

// lift takes the limits from the device of an LV that is about to go.
func (b *Backend) lift(uuid string) (restore func()) {
	if b.throttle == nil {
		return func() {}
	}
	path, err := b.kernel.device(uuid)
	if err != nil {
		b.log.Error("I/O limits are not taken from a device", "uuid", uuid, "err", err)
	}
	if path == "" {
		return func() {}
	}
	return iolimit.Lift(b.throttle, b.log, path, b.numberOf(path))
}
