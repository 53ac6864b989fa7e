package lvm

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// Snapshots of volumes that are not thin: device-mapper copies what is overwritten in
// the volume into space of the snapshot's own. When that is full the snapshot is lost,
// and the volume is not.

// paramSpace is the parameter of a snapshot that says how much space it gets: "20%" of
// the volume, or bytes, with Ki, Mi, Gi or Ti. Without it a snapshot gets as much as
// its volume has, and cannot run out of it.
const paramSpace = "cow-size"

var spaceForm = regexp.MustCompile(`^([1-9][0-9]{0,14})(%|Ki|Mi|Gi|Ti)?$`)

// snapshotSpace reads the parameters of a snapshot of a volume of this size.
func snapshotSpace(params map[string]string, v *volume) (bytes int64, err error) {
	for k := range params {
		if k != paramSpace {
			return 0, fmt.Errorf("%w: snapshot parameter %q is not known", backends.ErrInvalid, k)
		}
	}
	full := v.size + v.size/128 + 1<<20 // with the lists of what was copied
	text, given := params[paramSpace]
	if !given {
		return full, nil
	}
	if v.pool != "" {
		return 0, fmt.Errorf("%w: snapshot parameter %s: snapshots of thin volumes have no space of their own", backends.ErrInvalid, paramSpace)
	}
	m := spaceForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%w: snapshot parameter %s=%q: want 1%% to 100%%, or bytes with Ki, Mi, Gi or Ti", backends.ErrInvalid, paramSpace, text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	shift := map[string]int{"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[m[2]]
	switch {
	case err != nil, m[2] == "%" && n > 100, m[2] != "%" && n > maxSize>>shift:
		return 0, fmt.Errorf("%w: snapshot parameter %s=%q is too much", backends.ErrOutOfRange, paramSpace, text)
	case m[2] == "%" && n < 100:
		return v.size / 100 * n, nil
	case m[2] == "%":
		return full, nil
	}
	return min(n<<shift, full), nil
}

// admitSpace refuses a thick snapshot for which the VG has no room. Like the volumes
// of a class it leaves free what the class spares.
func admitSpace(g *group, c *Class, n int64) error {
	spare := (c.Spare + g.extent - 1) / g.extent
	if n > g.free-spare {
		return fmt.Errorf("%w: %d bytes for a snapshot in volume group %s, and there is room for %d", backends.ErrNoSpace,
			n*g.extent, g.name, max(0, g.free-spare)*g.extent)
	}
	return nil
}

// extentsOf is how many extents hold so many bytes.
func (g *group) extentsOf(bytes int64) int64 { return max(1, (bytes+g.extent-1)/g.extent) }

// split takes a thick snapshot off its volume. What is left of it is a plain LV with
// what its volume had, which is wiped as every other.
func (b *Backend) split(ctx context.Context, c *Class, v *volume) (*volume, error) {
	leave, err := b.turn(ctx, c)
	if err != nil {
		return nil, err
	}
	defer leave()
	if v, err = b.current(ctx, c, v); err != nil {
		return nil, err
	}
	failed := b.tool.change(ctx, c.VG, "lvconvert", "--splitsnapshot", v.path())
	b.step("delete:split")
	g, err := b.look(context.WithoutCancel(ctx), c)
	if err != nil {
		return nil, err
	}
	now := g.byUUID(v.uuid)
	if now == nil || now.thick() {
		return nil, classify(fmt.Errorf("split %s: %w", v.path(), firstOf(failed, errNoReason)))
	}
	return now, nil
}

// The percentage of its space from which a snapshot is worth a word.
const snapshotWarn = 80

// snapshotHealth says what is wrong with the thick snapshots of a volume. CSI asks for
// the health of volumes alone, so it is told with theirs.
func snapshotHealth(g *group, v *volume) (h []backends.Health) {
	var lost, full []string
	for _, o := range g.lvs {
		if !o.thickOf(v) {
			continue
		}
		name := o.path()
		if o.ours() {
			name = fmt.Sprintf("%s (%s, %q)", name, o.id(), o.own.Name)
		}
		switch {
		case o.invalid:
			lost = append(lost, name)
		case o.filled >= snapshotWarn:
			full = append(full, fmt.Sprintf("%s: %.2f %%", name, o.filled))
		}
	}
	if len(lost) > 0 {
		h = append(h, backends.Health{Status: backends.HealthDegraded, Reason: "SnapshotInvalid",
			Message: "snapshots that are lost, because their space ran out or failed: " + strings.Join(lost, "; ")})
	}
	if len(full) > 0 {
		h = append(h, backends.Health{Status: backends.HealthDegraded, Reason: "SnapshotNearlyFull",
			Message: "snapshots that are lost when their space is full (lvextend gives them more): " + strings.Join(full, "; ")})
	}
	return h
}

// sound refuses a thick snapshot that is lost. Only of one that is active lvm tells.
func (b *Backend) sound(ctx context.Context, c *Class, v *volume) error {
	if !v.thick() {
		return nil
	}
	g, err := b.look(ctx, c)
	if err != nil {
		return err
	}
	now := g.byUUID(v.uuid)
	switch {
	case now == nil || !now.thick():
		return fmt.Errorf("%w: logical volume %s is no snapshot any more", backends.ErrUnavailable, v.path())
	case now.invalid && v.own.Kind == kindTemp:
		return fmt.Errorf("%w: logical volume %s ran out of space while it was copied", backends.ErrUnavailable, v.path())
	case now.invalid:
		return fmt.Errorf("%w: snapshot %s is lost: logical volume %s ran out of space, or its disk failed", backends.ErrDataLoss, v.id(), v.path())
	}
	return nil
}

// tempSpace is what a temporary snapshot gets: a fifth of its volume, if there is as
// much beside what is reserved for others.
func tempSpace(g *group, c *Class, v *volume, reserved int64) int64 {
	spare := (c.Spare + g.extent - 1) / g.extent
	return min(g.extentsOf(int64(math.Ceil(float64(v.size)/5))), g.free-spare-reserved)
}
