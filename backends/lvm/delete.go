package lvm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// DeleteVolume tags the LV as being deleted, which no call takes back, wipes it and
// removes it. Whoever is killed in between leaves an LV that the next call, or the
// next start, goes on with from where the wipe was.
func (b *Backend) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	if err := b.serves(ControllerHalf); err != nil {
		return err
	}
	return b.delete(ctx, req.ID, kindVolume, func(v *volume) error {
		if v.own.Pod != "" {
			return fmt.Errorf("%w: volume %s is the inline volume of a pod", backends.ErrInUse, req.ID)
		}
		return nil
	})
}

// delete takes an LV away, unless refuse has something against it.
func (b *Backend) delete(ctx context.Context, id, kind string, refuse ...func(*volume) error) error {
	end, err := b.begin(ctx, id)
	if err != nil {
		return err
	}
	v, err := b.erase(ctx, id, kind, refuse...)
	end()
	if err != nil {
		return err
	}
	return b.eraseTemp(ctx, v)
}

// erase is delete for who has begun, without the temporary snapshot of a copy.
func (b *Backend) erase(ctx context.Context, id, kind string, refuse ...func(*volume) error) (*volume, error) {
	c, v, err := b.mark(ctx, id, kind, refuse)
	if used, ok := errors.AsType[*dependentError](err); ok && used.by.ours() && used.by.own.Kind == kindTemp {
		// It was left by a copy that nobody goes on with, or by now by the sweep after a
		// start: csidriver deletes no volume that is being copied.
		if err := gone(b.delete(ctx, used.by.id(), kindTemp, sameAs(used.by))); err != nil {
			return nil, err
		}
		return b.erase(ctx, id, kind, refuse...)
	}
	if err != nil {
		return nil, err
	}
	if v.thick() {
		if v, err = b.split(ctx, c, v); err != nil {
			return nil, err
		}
	}
	if v.wiped() && c.Wipe != WipeNone {
		if err := b.wipe(ctx, c, v); err != nil {
			return nil, classify(fmt.Errorf("wipe %s: %w", id, err))
		}
	}
	if err := b.removeTogether(ctx, c, v); err != nil {
		return nil, classify(fmt.Errorf("delete %s: %w", id, err))
	}
	return v, nil
}

// wiped says whether the LV is to be wiped before it goes. A thin one need not be:
// its pool zeroes what it gives away. Neither one that was never ready, unless it is a
// copy: nobody has written to it.
func (v *volume) wiped() bool {
	return v.pool == "" && (v.own.State != stateCreating || v.own.Source != "")
}

// begin lets one at a time wipe an LV: a call waits for the sweep after a start.
func (b *Backend) begin(ctx context.Context, id string) (end func(), err error) {
	for {
		b.mu.Lock()
		other := b.wiping[id]
		if other == nil {
			mine := make(chan struct{})
			b.wiping[id] = mine
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				delete(b.wiping, id)
				close(mine)
			}, nil
		}
		b.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// sameAs refuses to delete another LV than the one that was looked at: meanwhile it may
// be gone, and its name given to a volume that somebody uses; or the copy that was half
// done may have been gone on with, and be ready.
func sameAs(v *volume) func(*volume) error {
	return func(now *volume) error {
		if now.uuid != v.uuid || v.own.State == stateCreating && now.own.State == stateReady {
			return notFound(v.own.Kind, v.id())
		}
		return nil
	}
}

// mark tags the LV. Nothing is deleted in a VG that lacks disks.
func (b *Backend) mark(ctx context.Context, id, kind string, refuse []func(*volume) error) (*Class, *volume, error) {
	c, name, err := b.locate(id, kind)
	if err != nil {
		return nil, nil, err
	}
	var v *volume
	var in *group
	var want string
	tagged := false
	err = b.together(ctx, c, func(g *group) ([]string, string, error) {
		found, err := g.find(c.Name, name)
		if v, in = found, g; v == nil || err != nil {
			return nil, "", err
		}
		for _, r := range refuse {
			if err := r(v); err != nil {
				return nil, "", err
			}
		}
		if _, err := freeIn(g, v); err != nil {
			return nil, "", fmt.Errorf("delete %s: %w", id, err)
		}
		change, state := v.deleting()
		if change == nil {
			return nil, "", nil
		}
		tagged, want = true, state
		return append([]string{"lvchange"}, change...), v.path(), nil
	})
	switch {
	case err != nil && tagged:
		return nil, nil, classify(fmt.Errorf("delete %s: %w", id, err))
	case err != nil:
		return nil, nil, err
	case v == nil:
		return nil, nil, b.absent(ctx, in, kind, id)
	case !tagged:
		return c, v, nil
	}
	b.step("delete:marked")
	c, v, err = b.peekVolume(ctx, id, kind)
	if err != nil {
		return nil, nil, err
	}
	if v.own.State != want || want == stateCreating && v.own.OriginUUID != "" {
		return nil, nil, fmt.Errorf("%w: logical volume %s is %s after it was marked", backends.ErrUnavailable, v.path(), v.own.State)
	}
	return c, v, nil
}

// deleting is how the tags of an LV that goes are changed, and the state that it has
// then; nil: they need not be.
func (v *volume) deleting() (change []string, state string) {
	switch {
	case v.own.State == stateReady && v.stateOf() == stateCreating:
		// A member of a group that is not whole: it is not ready either, and as the
		// others are taken away, it must not look like all there is of the group.
		return append(addTags(tagState+stateCreating), delTags(tagState+stateReady)...), stateCreating
	case v.own.State == stateReady && (v.wiped() || v.own.Group != ""): // else one command removes it, with its tags
		return append(addTags(tagState+stateDeleting), delTags(tagState+stateReady)...), stateDeleting
	case v.own.State == stateCreating && v.own.OriginUUID != "":
		// A copy that is not gone on with: from now on its offset is that of a wipe.
		// Nobody has seen it, so that its name stays free.
		change = delTags(tagOrigin + v.own.OriginUUID)
		if v.own.Offset > 0 {
			change = append(change, delTags(tagOffset+strconv.FormatInt(v.own.Offset, 10))...)
		}
		return change, stateCreating
	}
	return nil, ""
}

const (
	wipeStep = 256 << 20 // bytes between two looks at the context
	wipeNote = 64 << 30  // bytes between two tags that say how far the wipe came
)

// wipe makes the whole LV read as zeros. It holds the device exclusively, so that
// nobody mounts it meanwhile, and not the VG's turn: it may take hours.
func (b *Backend) wipe(ctx context.Context, c *Class, v *volume) error {
	path, err := b.activate(ctx, c, v)
	if err != nil {
		return err
	}
	d, err := b.kernel.exclusive(path, v.dmUUID())
	if err != nil {
		return err
	}
	if d.size() < v.size {
		return errors.Join(fmt.Errorf("%s has %d bytes, and %s %d", path, d.size(), v.path(), v.size), d.close())
	}
	err = b.mend(ctx, c, v)
	if err == nil {
		err = b.zero(ctx, c, v, d)
	}
	if err = errors.Join(err, d.close()); err != nil {
		return err
	}
	b.step("delete:wiped")
	return b.allLegs(ctx, c, v)
}

// mend has a leg of a RAID LV that failed and is back take part again: as it is, it
// gets nothing of what is written, and would keep what it has.
func (b *Backend) mend(ctx context.Context, c *Class, v *volume) error {
	err := b.allLegs(ctx, c, v)
	if err == nil {
		return nil
	}
	leave, turn := b.turn(ctx, c)
	if turn != nil {
		return turn
	}
	defer leave()
	if again := b.tool.change(ctx, c.VG, "lvchange", "--refresh", v.path()); again != nil {
		return errors.Join(err, again)
	}
	b.step("delete:refreshed")
	return b.allLegs(ctx, c, v)
}

// allLegs refuses a RAID LV of which a leg has not got what was written to it.
func (b *Backend) allLegs(ctx context.Context, c *Class, v *volume) error {
	if !strings.Contains(v.layout, "raid") {
		return nil
	}
	g, err := b.look(ctx, c)
	if err != nil {
		return err
	}
	now := g.byUUID(v.uuid)
	if now == nil || now.health != "" && !strings.Contains(now.health, "mismatches exist") {
		return fmt.Errorf("%w: %s is written to without all of its legs (lvchange --refresh, or lvconvert --repair)", backends.ErrUnavailable, v.path())
	}
	return nil
}

func (b *Backend) zero(ctx context.Context, c *Class, v *volume, d disk) error {
	noted := v.own.Offset
	for at := noted; at < d.size(); at += wipeStep {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := d.zero(at, min(wipeStep, d.size()-at), c.Wipe == WipeDiscard); err != nil {
			return err
		}
		b.step("delete:wiping")
		backends.Progress(ctx, fmt.Sprintf("wiped %d MiB of %s", (at+wipeStep)>>20, v.path()))
		if done := at + wipeStep; done-noted >= wipeNote && done < d.size() {
			if err := b.allLegs(ctx, c, v); err != nil {
				return err // what is noted is not written again
			}
			if err := b.note(ctx, c, v, d, noted, done); err != nil {
				return err
			}
			noted = done
		}
	}
	return d.sync()
}

// note says in the tags how far the wipe came.
func (b *Backend) note(ctx context.Context, c *Class, v *volume, d disk, was, is int64) error {
	if err := d.sync(); err != nil {
		return err
	}
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	if v, err = b.current(ctx, c, v); err != nil {
		return err
	}
	argv := []string{"lvchange"}
	if was > 0 {
		argv = append(argv, delTags(tagOffset+strconv.FormatInt(was, 10))...)
	}
	argv = append(argv, addTags(tagOffset+strconv.FormatInt(is, 10))...)
	return b.tool.change(ctx, c.VG, append(argv, v.path())...)
}
