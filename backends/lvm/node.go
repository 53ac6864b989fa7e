package lvm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/luks"
)

// OpenVolume activates the LV, as it has to after every start of the machine.
func (b *Backend) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	if err := b.serves(NodeHalf); err != nil {
		return nil, err
	}
	was, err := decodeState(req.State)
	if err != nil {
		return nil, err
	}
	c, v, err := b.peekReady(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	if was != nil && was.DM != v.dmUUID() {
		return nil, fmt.Errorf("%w: volume %s was opened as %s, and is %s now: it was made anew", backends.ErrPrecondition, v.id(), was.DM, v.dmUUID())
	}
	if v.partial && !strings.Contains(v.layout, "raid") {
		return nil, fmt.Errorf("%w: logical volume %s lacks disks", backends.ErrUnavailable, v.path())
	}
	encryption, err := v.encryption(req.Secrets)
	if err != nil {
		return nil, err
	}
	if err := b.claim(ctx, v.id()); err != nil {
		return nil, err
	}
	var and []string
	now := *v.own
	// Of an encrypted one the engine says so, when it has made the header.
	if req.Capability.Block && encryption == nil && !strings.HasSuffix(v.own.Format, ":done") && v.own.Format != formatRaw {
		// Whoever gets the device itself may write what no probe knows: from now on
		// it is never formatted.
		if v.own.Format != "" {
			and = delTags(tagFormat + v.own.Format)
		}
		and = append(append(and, addTags(tagFormat+formatRaw)...), v.firstChange()...)
		now.Format = formatRaw
	}
	path, err := b.activate(ctx, c, v, and...)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", v.id(), err)
	}
	if err := b.limit(v, path, v.own.Mutable); err != nil {
		return nil, err
	}
	b.step("open:limited")
	st, err := (&state{Version: stateVersion, DM: v.dmUUID(), Path: v.path()}).encode()
	if err != nil {
		return nil, err
	}
	format, fsType := now.format()
	return &backends.Source{
		Device: &backends.Device{
			Path: path, Format: format, FSType: fsType,
			Identity: backends.Identity{DMUUID: v.dmUUID(), Size: v.size}, Encryption: encryption,
		},
		State: st,
	}, nil
}

// encryption is what the engine is told of an encrypted volume; nil: it is none.
func (v *volume) encryption(s backends.Secrets) (*backends.Encryption, error) {
	if !v.own.Encrypted {
		return nil, nil
	}
	return luks.Encryption(v.id(), s)
}

// CloseVolume sees that nobody uses the LV. It stays active until it is deleted, the
// driver or the machine starts again, unless it has thick snapshots: an active LV costs a few kilobytes, and lvm a
// tenth of a second each time. What tells whether there is anything to do is the
// kernel: a VG that is not there any more is no hindrance where no device is.
func (b *Backend) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	if err := b.serves(NodeHalf); err != nil {
		return err
	}
	if _, _, ok := splitID(req.ID, kindVolume); !ok {
		return nil // never was one of ours
	}
	s, err := decodeState(req.State)
	if err != nil {
		return err
	}
	if s != nil {
		dev, err := b.kernel.device(s.DM)
		if err != nil {
			return err
		}
		if dev == "" {
			b.release(req.ID)
			return nil
		}
	}
	c, v, err := b.peekVolume(ctx, req.ID, kindVolume)
	switch {
	case errors.Is(err, backends.ErrNotFound) && s == nil:
		return nil
	case errors.Is(err, backends.ErrNotFound):
		return fmt.Errorf("%w: volume %s is gone, and its device %s is not", backends.ErrUnavailable, req.ID, s.DM)
	case err != nil:
		return err
	case s != nil && s.DM != v.dmUUID():
		return fmt.Errorf("%w: volume %s was opened as %s, and is %s now", backends.ErrUnavailable, req.ID, s.DM, v.dmUUID())
	}
	restore := b.lift(v.dmUUID())
	if err := b.idle(v.path(), v.dmUUID(), nil); err != nil {
		restore()
		return fmt.Errorf("close volume %s: %w", req.ID, err)
	}
	if v.hasThick() {
		// It cannot grow while it is active, and the controller may be another process.
		if err := b.deactivate(ctx, c, v); err != nil {
			return fmt.Errorf("close volume %s: %w", req.ID, err)
		}
	}
	b.release(req.ID)
	return nil
}

// RecordFormat remembers with the volume that it was, or is being, formatted.
func (b *Backend) RecordFormat(ctx context.Context, req backends.RecordFormatRequest) error {
	if err := b.serves(NodeHalf); err != nil {
		return err
	}
	tag, err := formatTag(req)
	if err != nil {
		return err
	}
	c, name, err := b.locate(req.ID, kindVolume)
	if err != nil {
		return err
	}
	changed := false
	var absentIn *group
	err = b.together(ctx, c, func(g *group) ([]string, string, error) {
		v, err := g.find(c.Name, name)
		switch {
		case err != nil:
			return nil, "", err
		case v == nil:
			absentIn = g
			return nil, "", nil
		case v.own.State != stateReady:
			return nil, "", v.notReady()
		}
		have, fsType := v.own.format()
		switch {
		case tagFormat+v.own.Format == tag:
			return nil, "", nil
		case have == backends.FormatDone:
			return nil, "", fmt.Errorf("%w: volume %s was formatted with %q already", backends.ErrPrecondition, req.ID, fsType)
		}
		argv := append([]string{"lvchange"}, v.firstChange()...)
		if v.own.Format != "" {
			argv = append(argv, delTags(tagFormat+v.own.Format)...)
		}
		changed = true
		return append(argv, addTags(tag)...), v.path(), nil
	})
	if err == nil && absentIn != nil {
		err = b.absent(ctx, absentIn, kindVolume, req.ID)
	}
	if err != nil {
		return classify(fmt.Errorf("volume %s: %w", req.ID, err))
	}
	if changed {
		b.step("format:" + req.Format.String())
	}
	return nil
}

func formatTag(req backends.RecordFormatRequest) (string, error) {
	switch {
	case req.Format != backends.FormatStarted && req.Format != backends.FormatDone:
		return "", fmt.Errorf("%w: format state %v", backends.ErrInvalid, req.Format)
	case req.FSType == "" && req.Format == backends.FormatDone:
		return tagFormat + formatRaw, nil
	case req.FSType == "":
		return tagFormat + formatRaw + ":started", nil // an encrypted device without a file system
	case !validFSType.MatchString(req.FSType):
		return "", fmt.Errorf("%w: file system %q", backends.ErrInvalid, req.FSType)
	}
	return tagFormat + req.FSType + ":" + req.Format.String(), nil
}

// NodeExpandVolume has nothing to do: lvextend gave the device its new size. It
// looks whether that is so.
func (b *Backend) NodeExpandVolume(ctx context.Context, req backends.NodeExpandVolumeRequest) error {
	if err := b.serves(NodeHalf); err != nil {
		return err
	}
	_, v, err := b.peekReady(ctx, req.ID)
	if err != nil {
		return err
	}
	if req.Range.Required > v.size {
		return fmt.Errorf("%w: volume %s has %d bytes, %d are required: it must be expanded by the controller first",
			backends.ErrOutOfRange, v.id(), v.size, req.Range.Required)
	}
	dev, err := b.kernel.device(v.dmUUID())
	if err != nil {
		return err
	}
	if dev == "" {
		return fmt.Errorf("%w: volume %s is not open on this node", backends.ErrPrecondition, v.id())
	}
	return nil
}
