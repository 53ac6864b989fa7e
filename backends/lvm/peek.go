package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/lvm/internal/vgda"
)

// A report of lvm costs a tenth of a second, and a volume's life would take a dozen.
// So a process asks lvm once where the disks of a VG are, and whether all of them
// are, and from then on reads the metadata from the disks itself: as long as every
// disk is where it was, has the label that it had, and shows the same state as the
// others. Whatever is not as it should be is lvm's to judge again.

// known is a VG whose disks are known. Who has its turn reads, on a goroutine of its
// own: a disk that hangs holds that up, and not those who ask.
type known struct {
	turn  chan struct{}
	stuck atomic.Bool // the one who has the turn is late: nobody waits for it
	after time.Time   // of the next try, where lvm had something against it

	paths map[string]string // by UUID of the PV
	was   *vgda.Group       // as it was when lvm said that it is complete
	mark  string            // of what now is
	now   *vgda.Group
}

// errDoubt says that lvm has to be asked.
var errDoubt = errors.New("to be asked of lvm")

// peek is look without lvm, where that is enough: all of the metadata, which LVs are
// active and open, and how full pools are. Not the health of LVs, nor their syncing.
func (b *Backend) peek(ctx context.Context, c *Class) (*group, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	g, err := b.direct(ctx, c.VG)
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			b.log.Debug("metadata is not read directly", "vg", c.VG, "err", err)
		}
		return b.look(ctx, c)
	}
	if err := b.pinned(c, g); err != nil {
		return nil, err
	}
	return g, nil
}

func (b *Backend) known(vg string) *known {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.disks[vg]
	if k == nil {
		k = &known{turn: make(chan struct{}, 1)}
		b.disks[vg] = k
	}
	return k
}

func (b *Backend) direct(ctx context.Context, vg string) (*group, error) {
	d, ok := b.kernel.(directKernel)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	k := b.known(vg)
	if k.stuck.Load() {
		return nil, fmt.Errorf("%w: a disk of %s hangs", errDoubt, vg)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-late.C:
		return nil, fmt.Errorf("%w: the disks of %s are being read for %v", errDoubt, vg, patience)
	}
	type answer struct {
		g   *group
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-k.turn }()
		defer k.stuck.Store(false)
		g, err := b.read(ctx, d, vg, k)
		done <- answer{g, err}
	}()
	select {
	case a := <-done:
		return a.g, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-late.C:
		k.stuck.Store(true)
		select {
		case a := <-done: // at this very moment
			k.stuck.Store(false)
			return a.g, a.err
		default:
		}
		return nil, fmt.Errorf("%w: a disk of %s has not answered for %v", errDoubt, vg, patience)
	}
}

const (
	// patience is how long disks may take to be read before lvm is asked, which can be
	// killed.
	patience = 5 * time.Second
	// distrust is how long lvm alone is asked when it had something against a VG.
	distrust = 10 * time.Second
)

// read is for who has the turn.
func (b *Backend) read(ctx context.Context, d directKernel, vg string, k *known) (*group, error) {
	if k.paths == nil {
		if time.Now().Before(k.after) {
			return nil, fmt.Errorf("%w: %s was not as it should be", errDoubt, vg)
		}
		if err := b.arm(ctx, vg, k); err != nil {
			k.after = time.Now().Add(distrust)
			return nil, err
		}
	}
	var err error
	for range 20 { // lvm writes one disk after the other
		if err = k.refresh(b.lookAt); !errors.Is(err, errBetween) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	switch {
	case errors.Is(err, errBetween):
		return nil, err
	case err != nil:
		k.paths = nil
		return nil, err
	case k.now.Snapshots:
		return nil, fmt.Errorf("%w: snapshots of the old kind in %s", errDoubt, vg) // how full, only lvm tells
	}
	return b.groupOf(d, k.now)
}

// arm asks lvm where the disks are, and whether all are there.
func (b *Backend) arm(ctx context.Context, vg string, k *known) error {
	rows, err := b.tool.rows(ctx, vg, "pv", "-o", "pv_name,pv_uuid,pv_missing,vg_name,vg_missing_pv_count", "--select", "vg_name="+vg)
	if err != nil {
		return err
	}
	paths := map[string]string{}
	for _, r := range rows {
		in := reader{row: r}
		if in.text("vg_name") != vg || in.int("vg_missing_pv_count") != 0 || in.text("pv_missing") != "" || in.err != nil {
			return fmt.Errorf("%w: disks of %s: %w", errDoubt, vg, errors.Join(in.err, errNoReason))
		}
		paths[vgda.Plain(in.text("pv_uuid"))] = in.text("pv_name")
	}
	k.paths, k.was, k.mark, k.now = paths, nil, "", nil
	if err := k.refresh(b.lookAt); err != nil {
		k.paths = nil
		return err
	}
	k.was = k.now
	if k.now.Name != vg {
		k.paths = nil
		return fmt.Errorf("%w: %s holds %s", errDoubt, vg, k.now.Name)
	}
	return nil
}

// errBetween is a VG whose disks differ: lvm is writing, or one was not written.
var errBetween = fmt.Errorf("%w: its disks differ", errDoubt)

// refresh looks at every disk, and reads the metadata if it is another by now.
func (k *known) refresh(lookAt func(string) (*vgda.Copy, error)) error {
	mark := ""
	var from *vgda.Copy
	var path string
	for uuid, p := range k.paths {
		c, err := lookAt(p)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errDoubt, err)
		case c.Disk != uuid:
			return fmt.Errorf("%w: %s is disk %s, and was %s", errDoubt, p, c.Disk, uuid)
		case c.Mark == "":
			continue
		case mark != "" && mark != c.Mark:
			return errBetween
		}
		mark, from, path = c.Mark, c, p
	}
	if from == nil {
		return fmt.Errorf("%w: no disk has metadata", errDoubt)
	}
	if mark == k.mark {
		return nil
	}
	g, err := from.Read(path)
	if errors.Is(err, vgda.ErrFormat) {
		return fmt.Errorf("%w: %w", errBetween, err) // written over meanwhile
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errDoubt, err)
	}
	if err := k.same(g); err != nil {
		return err
	}
	k.mark, k.now = mark, g
	return nil
}

// same refuses what is no longer the VG, or no longer has the disks, that lvm spoke
// of.
func (k *known) same(g *vgda.Group) error {
	ok := g.Complete() && len(g.Disks) == len(k.paths) && g.Lock == "" &&
		(k.was == nil || g.Name == k.was.Name && g.ID == k.was.ID && g.SystemID == k.was.SystemID && slices.Equal(g.Status, k.was.Status))
	for _, d := range g.Disks {
		ok = ok && k.paths[vgda.Plain(d.ID)] != ""
	}
	if !ok {
		return fmt.Errorf("%w: volume group %s was changed", errDoubt, g.Name)
	}
	return nil
}

// directKernel is a kernel that can be asked about LVs without lvm.
type directKernel interface {
	used(uuid string) (int, error)
	pool(uuid string) (data, meta float64, health string, err error)
}

// groupOf is what lvs would say of the metadata.
func (b *Backend) groupOf(k directKernel, m *vgda.Group) (*group, error) {
	g := &group{name: m.Name, uuid: m.ID, seqno: m.Seqno, extent: m.Extent, extents: m.Extents(), free: m.Free()}
	for _, d := range m.Disks {
		if d.Allocatable {
			g.disks = append(g.disks, physical{free: d.Extents - d.Used})
		}
	}
	for _, lv := range m.Volumes {
		v, err := b.volumeOf(k, g, lv)
		if err != nil {
			return nil, err
		}
		g.lvs = append(g.lvs, v)
	}
	return g, nil
}

func (b *Backend) volumeOf(k directKernel, g *group, lv vgda.Volume) (*volume, error) {
	v := &volume{
		g: g, name: lv.Name, uuid: lv.ID, size: lv.Extents * g.extent, tags: slices.Sorted(slices.Values(lv.Tags)),
		pool: lv.Pool, origin: lv.Origin, layout: layoutOf(lv), zero: lv.Zero, data: -1, meta: -1, sync: -1,
		filled: -1, thinID: lv.ThinID,
	}
	n, err := k.used(v.dmUUID())
	if err != nil {
		return nil, err
	}
	v.active, v.open = n >= 0, n > 0
	if v.layout == "thin,pool" {
		v.whenFull = "queue"
		if lv.ErrorWhenFull {
			v.whenFull = "error"
		}
		if v.data, v.meta, v.health, err = k.pool(v.dmUUID()); err != nil {
			return nil, err
		}
		if n, err = k.used(v.dmUUID() + "-tpool"); err != nil { // the pool itself, which its volumes hold
			return nil, err
		}
		v.active, v.open = n >= 0, n > 0
	}
	v.decodeOwn(b.o.Driver)
	return v, nil
}

// layoutOf is lv_layout, as far as anybody here asks.
func layoutOf(lv vgda.Volume) string {
	switch {
	case lv.Type == "thin":
		return "thin,sparse"
	case lv.Type == "thin-pool":
		return "thin,pool"
	case strings.HasPrefix(lv.Type, "raid"):
		return "raid," + lv.Type
	case lv.Type == "striped" && lv.Legs == 1:
		return "linear"
	}
	return lv.Type
}

// nearly compares percentages that were rounded by different rules.
func nearly(a, b float64) bool { return math.Abs(a-b) < 0.011 }

// peekVolume is volume by peek.
func (b *Backend) peekVolume(ctx context.Context, id, kind string) (*Class, *volume, error) {
	c, name, err := b.locate(id, kind)
	if err != nil {
		return nil, nil, err
	}
	g, err := b.peek(ctx, c)
	if err != nil {
		return b.volume(ctx, id, kind) // which also gives what is there of a VG that lacks disks
	}
	v, err := g.find(c.Name, name)
	switch {
	case err != nil:
		return nil, nil, err
	case v == nil:
		return nil, nil, b.absent(ctx, g, kind, id)
	}
	return c, v, nil
}

// peekReady is ready by peek.
func (b *Backend) peekReady(ctx context.Context, id string) (*Class, *volume, error) {
	c, v, err := b.peekVolume(ctx, id, kindVolume)
	if err != nil {
		return nil, nil, err
	}
	if v.own.State != stateReady {
		return nil, nil, v.notReady()
	}
	return c, v, nil
}

func (v *volume) notReady() error {
	return fmt.Errorf("%w: logical volume %s of %s is %s", backends.ErrUnavailable, v.path(), v.id(), v.own.State)
}
