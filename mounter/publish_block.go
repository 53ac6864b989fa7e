package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// block publishes a raw block volume: the node of the device that was staged,
// bound onto a file.
//
// Read-only is a flag of the whole device: a read-only bind of a device node
// stops nobody. So it is set while every target is read-only, and besides has
// refused a mixture.
func (p *publishing) block(ctx context.Context) (err error) {
	d, err := p.openRecorded(ctx, p.stage.data())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if p.stage.data().ReadOnly && !p.readOnly {
		return refuse("device %s is read-only by itself, and a writable one was asked for", d.Path())
	}
	if err := p.boundOtherwise(d); err != nil {
		return err
	}
	return p.attach(ctx, makeFile, func() error {
		if !p.stage.data().ReadOnly {
			if err := d.SetReadOnly(p.readOnly); err != nil {
				return err
			}
			faultpoint.Reach("mounter.publish.flagged")
		}
		return p.kernel.BindDevice(d, p.path, mnt.BindOptions{ReadOnly: p.readOnly})
	}, func(mnt.Info) error { return p.checkBlock(d) })
}

// boundOtherwise finds a read-only target of which the record was lost: it could be
// written through without the flag. While there is one, the flag is set.
func (p *publishing) boundOtherwise(d Device) error {
	if p.readOnly || p.stage.data().ReadOnly {
		return nil
	}
	ro, err := d.ReadOnly()
	if err != nil || !ro {
		return unavailableIf("device "+d.Path(), err)
	}
	bound, err := p.boundReadOnly(d.Num())
	if bound {
		return refuse("device %s is published read-only at a path of which there is no record, and a writable one was asked for", d.Path())
	}
	return err
}

// keepFlag looks at the device of a target that stands. A flag that somebody took
// away is set again: every target agrees on it.
func (p *publishing) keepFlag(ctx context.Context) (err error) {
	if !p.stage.block() {
		return nil
	}
	d, err := p.openRecorded(ctx, p.stage.data())
	if err != nil {
		return soften(err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	ro, err := d.ReadOnly()
	if err == nil && p.readOnly && !ro {
		p.log.WarnContext(ctx, "device was published read-only and somebody made it writable", "volume", p.req.ID, "path", p.path)
		err = d.SetReadOnly(true)
	}
	if err != nil {
		return unavailable("device %s: %w", d.Path(), err)
	}
	return p.checkBlock(d)
}

// checkBlock is the post-condition: the target is the device, read-only or not
// as asked.
func (p *publishing) checkBlock(d Device) error {
	dev, err := p.kernel.DeviceAt(p.path)
	if err != nil {
		return unavailable("look at %s: %w", p.path, err)
	}
	if dev != d.Num() {
		return unavailable("after binding it, %s is device %s, and the volume is %s", p.path, devName(dev), devName(d.Num()))
	}
	ro, err := d.ReadOnly()
	if err != nil {
		return unavailable("device %s: %w", d.Path(), err)
	}
	if ro != p.readOnly {
		return unavailable("device %s is read-only %v, and %v was asked for", d.Path(), ro, p.readOnly)
	}
	return nil
}

// writableAgain takes the read-only flag off a device that the engine set it on,
// once no target needs it.
func (e *Engine) writableAgain(ctx context.Context, dev *deviceRecord, r *record) error {
	if !r.block() || dev == nil || dev.ReadOnly || r.BootID != e.boot || dev.Num == 0 {
		return nil
	}
	d, err := e.openRecorded(ctx, dev)
	switch {
	case errors.Is(err, fs.ErrNotExist) || final(err):
		return nil // gone, or another disk by now: not the engine's any more
	case err != nil:
		return err
	}
	ro, err := d.ReadOnly()
	if err == nil && ro {
		err = d.SetReadOnly(false)
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("make device %s writable again: %w", dev.Path, soften(err))
	}
	faultpoint.Reach("mounter.unpublish.writable")
	return nil
}
