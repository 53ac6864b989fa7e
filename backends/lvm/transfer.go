package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/csikit/csikit/backends"
)

// transfer makes a volume that is a copy, block by block, of a snapshot, or of a
// volume as it is at one moment: that of a temporary snapshot. How far it came stands
// in the tags of the new LV, so that it goes on after its driver was killed; the
// change to ready, when everything is on the disk, is the moment the volume exists.
type transfer struct {
	b      *Backend
	p      *plan
	of     *Class  // of what is copied
	origin *volume // what is copied
	src    *volume // what is read: the snapshot, or the temporary one of a volume
}

func (b *Backend) transfer(ctx context.Context, p *plan, of *Class, origin *volume) (*volume, error) {
	if err := p.inherit(origin); err != nil {
		return nil, err
	}
	end, err := b.begin(ctx, p.id())
	if err != nil {
		return nil, err
	}
	defer end()
	t := &transfer{b: b, p: p, of: of, origin: origin}
	// The sweep after a start may be at the temporary snapshot of an earlier try.
	leave, err := b.begin(ctx, t.temp())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := t.run(ctx); err != nil {
		return nil, t.failed(ctx, fmt.Errorf("copy %s to %q: %w", p.m.Source, p.m.Name, err))
	}
	_, v, err := b.ready(context.WithoutCancel(ctx), p.id(), kindVolume)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not there after it was copied: %w", backends.ErrUnavailable, p.m.Name, err)
	}
	return v, nil
}

// temp is the ID of the temporary snapshot.
func (t *transfer) temp() string { return makeID(t.of.Name, nameOf(kindTemp, t.p.m.Name)) }

func (t *transfer) run(ctx context.Context) error {
	v, err := t.half(ctx)
	if err == nil && v == nil {
		err = t.cut(ctx)
		if err == nil {
			v, err = t.create(ctx)
		}
	}
	if err != nil {
		return err
	}
	if err := t.fill(ctx, v); err != nil {
		return err
	}
	if err := t.commit(ctx); err != nil {
		return err
	}
	t.tidy(context.WithoutCancel(ctx))
	return nil
}

// half looks for a copy that was not ended. One that cannot be gone on with is taken
// away, with its snapshot.
func (t *transfer) half(ctx context.Context) (*volume, error) {
	g, err := t.b.lookForSpace(ctx, t.p.c)
	if err != nil {
		return nil, err
	}
	half, err := taken(g, t.p)
	if err != nil {
		return nil, err
	}
	if err := t.p.measure(g); err != nil {
		return nil, err
	}
	src := t.origin
	if t.origin.own.Kind == kindVolume {
		from, err := t.b.look(ctx, t.of)
		if err != nil {
			return nil, err
		}
		if src, err = from.find(t.of.Name, nameOf(kindTemp, t.p.m.Name)); err != nil {
			return nil, err
		}
	}
	if half != nil && src != nil && t.continues(g, half, src) {
		t.src = src
		return half, nil
	}
	if half != nil {
		err = t.erase(ctx, half.id(), kindVolume)
	}
	if err == nil && src != nil && src.own.Kind == kindTemp {
		err = t.erase(ctx, src.id(), kindTemp)
	}
	return nil, err
}

// continues says whether the half-made copy is the one that is asked for, of a
// snapshot that is still what it was.
func (t *transfer) continues(g *group, half, src *volume) bool {
	return half.own.OriginUUID == src.uuid && half.own.Source == t.p.m.Source && half.own.Fingerprint == t.p.m.Fingerprint &&
		half.size == t.p.extents*g.extent && maps.Equal(half.own.Mutable, t.p.m.Mutable) && src.whole()
}

// erase takes away what the transfer has begun with.
func (t *transfer) erase(ctx context.Context, id, kind string) error {
	_, err := t.b.erase(ctx, id, kind)
	return gone(err)
}

// gone takes "not found" for done.
func gone(err error) error {
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	return err
}

// cut makes the temporary snapshot of a volume. What is known of the format is read
// after it; see settle.
func (t *transfer) cut(ctx context.Context) error {
	if t.origin.own.Kind == kindSnapshot {
		t.src, t.p.m.Format, t.p.m.OriginUUID = t.origin, t.origin.own.Format, t.origin.uuid
		return t.b.sound(ctx, t.of, t.origin)
	}
	p := &plan{c: t.of, origin: t.origin, m: meta{
		Class: t.of.Name, Kind: kindTemp, Name: t.p.m.Name, State: stateCreating, Source: t.p.m.Source, Created: t.b.now(),
	}}
	g, leave, err := t.b.lookInTurn(ctx, t.of, t.b.look)
	if err != nil {
		return err
	}
	defer leave()
	if err := p.refind(g); err != nil {
		return err
	}
	if err := t.reserve(ctx, g, p); err != nil {
		return err
	}
	t.origin = p.origin
	if err := t.b.lvcreate(ctx, p, g); err != nil {
		return t.b.left(ctx, p, err)
	}
	if g, err = t.b.look(context.WithoutCancel(ctx), t.of); err != nil {
		return err
	}
	src, err := g.find(t.of.Name, p.lv())
	now := g.byUUID(t.origin.uuid)
	if err == nil && (src == nil || now == nil || !now.ours()) {
		err = fmt.Errorf("%w: logical volume %s, or its snapshot, is gone after it was cut", backends.ErrUnavailable, t.origin.path())
	}
	if err != nil {
		return err
	}
	t.src, t.p.m.Format, t.p.m.OriginUUID = src, now.own.Format, src.uuid
	return nil
}

// reserve sees that there is room for the temporary snapshot beside the copy.
func (t *transfer) reserve(ctx context.Context, g *group, p *plan) error {
	if t.origin.pool != "" {
		woken, err := t.b.readyPool(ctx, g, t.of)
		if err == nil && woken {
			g, err = t.b.look(ctx, t.of)
		}
		if err != nil {
			return err
		}
		return admit(g, t.of, 0)
	}
	own := int64(0)
	if t.p.c.VG == t.of.VG && !t.p.c.thin() {
		all, data := t.p.c.legs()
		own = t.p.extents/int64(data)*int64(all) + int64(all) // with the metadata of RAID legs
	}
	n := tempSpace(g, t.of, t.origin, own)
	if n < 1 {
		return fmt.Errorf("%w: no room in volume group %s for a snapshot of %s while it is copied", backends.ErrNoSpace, g.name, t.origin.path())
	}
	p.space = n * g.extent
	return nil
}

// create makes the LV of the copy.
func (t *transfer) create(ctx context.Context) (*volume, error) {
	b, p := t.b, t.p
	leave, err := b.turn(ctx, p.c)
	if err != nil {
		return nil, err
	}
	defer leave()
	g, err := b.lookForSpace(ctx, p.c)
	if err != nil {
		return nil, err
	}
	if woken, err := b.readyPool(ctx, g, p.c); err != nil {
		return nil, err
	} else if woken {
		if g, err = b.lookForSpace(ctx, p.c); err != nil {
			return nil, err
		}
	}
	if err := admit(g, p.c, p.extents); err != nil {
		return nil, err
	}
	if err := b.lvcreate(ctx, p, g); err != nil {
		return nil, b.left(ctx, p, err)
	}
	_, v, err := b.volume(context.WithoutCancel(ctx), p.id(), kindVolume)
	return v, err
}

// fill copies. The source is active for as long, and the copy held exclusively.
func (t *transfer) fill(ctx context.Context, v *volume) error {
	b := t.b
	path, err := b.activate(ctx, t.of, t.src)
	if err == nil {
		err = b.sound(ctx, t.of, t.src)
	}
	if err != nil {
		return err
	}
	src, err := b.kernel.readable(path, t.src.dmUUID())
	if err != nil {
		return err
	}
	if path, err = b.activate(ctx, t.p.c, v); err != nil {
		return errors.Join(err, src.close())
	}
	dst, err := b.kernel.exclusive(path, v.dmUUID())
	if err != nil {
		return errors.Join(err, src.close())
	}
	if n := t.src.content(); src.size() < n || dst.size() < max(n, v.size) {
		err = fmt.Errorf("%w: %d bytes are to be copied, from a device with %d to one with %d", backends.ErrUnavailable, n, src.size(), dst.size())
	} else {
		err = t.blocks(ctx, v, src, dst)
	}
	if err = errors.Join(err, src.close(), dst.close()); err != nil {
		return err
	}
	b.step("copy:filled")
	return b.sound(ctx, t.of, t.src)
}

const copyPiece = 1 << 20

// blocks copies what the source has, from where an earlier try came to. What reads as
// zeros is not written to a thin volume, which has none, and is zeroed in others in
// the way the disk does best.
func (t *transfer) blocks(ctx context.Context, v *volume, src, dst disk) error {
	size, noted := t.src.content(), v.own.Offset
	buf, zeros := make([]byte, copyPiece), make([]byte, copyPiece)
	clean := noted // from here on the copy is not written yet
	flush := func(upTo int64) error {
		from := clean
		clean = upTo
		if from >= upTo || v.pool != "" {
			return nil
		}
		return dst.zero(from, upTo-from, false)
	}
	for at := noted; at < size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := min(copyPiece, size-at)
		piece := buf[:n]
		if err := src.readAt(piece, at); err != nil {
			return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
		}
		if !bytes.Equal(piece, zeros[:n]) {
			if err := errors.Join(flush(at), dst.writeAt(piece, at)); err != nil {
				return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
			}
			clean = at + n
		}
		at += n
		t.b.step("copy:piece")
		backends.Progress(ctx, fmt.Sprintf("copied %d of %d MiB to %s", at>>20, size>>20, v.path()))
		if at-noted >= t.b.noteEvery && at < size {
			if err := errors.Join(flush(at), t.b.note(ctx, t.p.c, v, dst, noted, at)); err != nil {
				return err
			}
			noted = at
			t.b.step("copy:noted")
		}
		if at-clean >= wipeStep {
			if err := flush(at); err != nil {
				return err
			}
		}
	}
	// Behind the source's end, what the disk had before is nobody's business.
	for clean < v.size {
		if err := errors.Join(context.Cause(ctx), flush(min(v.size, clean+wipeStep))); err != nil {
			return err
		}
		backends.Progress(ctx, fmt.Sprintf("zeroed %d of %d MiB of %s", clean>>20, v.size>>20, v.path()))
	}
	return dst.sync()
}

// commit makes the copy ready, in one change of its tags.
func (t *transfer) commit(ctx context.Context) error {
	leave, err := t.b.turn(ctx, t.p.c)
	if err != nil {
		return err
	}
	defer leave()
	_, v, err := t.b.volume(ctx, t.p.id(), kindVolume)
	if err != nil {
		return err
	}
	argv := append([]string{"lvchange", "--setautoactivation", "n"}, delTags(tagState+stateCreating)...)
	for _, tag := range v.tags {
		if strings.HasPrefix(tag, tagOffset) {
			argv = append(argv, delTags(tag)...)
		}
	}
	argv = append(argv, addTags(tagState+stateReady)...)
	err = t.b.tool.change(ctx, t.p.c.VG, append(argv, v.path())...)
	t.b.step("copy:ready")
	return err
}

// tidy takes the temporary snapshot away, and the devices that only the copy used.
// What fails is for the next deletion, or the next start.
func (t *transfer) tidy(ctx context.Context) {
	b := t.b
	if t.src.own.Kind == kindTemp {
		if err := t.erase(ctx, t.src.id(), kindTemp); err != nil {
			b.log.Warn("temporary snapshot is left", "lv", t.src.path(), "err", err)
		}
	}
	if err := b.rest(ctx, t.of, t.origin); err != nil {
		b.log.Warn("logical volume stays active", "lv", t.origin.path(), "err", err)
	}
}

// failed leaves a copy that may be gone on with, and takes it away where the answer
// must be final: then nothing may be left.
func (t *transfer) failed(ctx context.Context, err error) error {
	err = classify(err)
	for _, open := range []error{backends.ErrUnavailable, backends.ErrPending, backends.ErrExists, backends.ErrIncompatible, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, open) {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx)
	if _, v, look := t.b.volume(ctx, t.p.id(), kindVolume); look == nil && v.own.State == stateReady {
		return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	left := errors.Join(t.erase(ctx, t.p.id(), kindVolume), t.erase(ctx, t.temp(), kindTemp))
	if left != nil {
		return fmt.Errorf("%w: %w, and then: %w", backends.ErrUnavailable, err, left)
	}
	return err
}

// eraseTemp takes the temporary snapshot of a copy away that was deleted itself.
func (b *Backend) eraseTemp(ctx context.Context, v *volume) error {
	class, _, ok := splitID(v.own.Source, kindVolume)
	if v.own.Kind != kindVolume || !ok || b.classes[class] == nil {
		return nil
	}
	return gone(b.delete(ctx, makeID(class, nameOf(kindTemp, v.own.Name)), kindTemp))
}
