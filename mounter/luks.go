package mounter

import (
	"context"
	"errors"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// encrypted is what a stage knows of the LUKS layer of its device.
type encrypted struct {
	outer  Device
	header LUKSHeader
}

// marked reports whether the device itself remembers what became of it: then no
// record of this node is the only memory.
func (c *encrypted) marked() bool { return c != nil && c.header.Mark != "" }

// unused reports whether nobody has ever seen what is inside.
func (c *encrypted) unused() bool { return c != nil && c.header.Mark == LUKSNew }

// encrypted opens an encrypted device, formats it before if that is allowed, and
// goes on with what is inside.
func (s *staging) encrypted(ctx context.Context, d Device) (err error) {
	h, err := s.luksHeader(ctx, d)
	if err != nil {
		return err
	}
	s.crypt = &encrypted{outer: d, header: h}
	in, err := s.luksOpen(ctx, d, h)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return s.use(ctx, in)
}

// luksHeader is the header of the device, which is made when there is none and
// decideLUKS allows it.
func (s *staging) luksHeader(ctx context.Context, d Device) (LUKSHeader, error) {
	if err := s.step(ctx, "probe device"); err != nil {
		return LUKSHeader{}, err
	}
	// Before reading: a luksFormat that outlived its driver may end in between.
	claimed, err := d.Claimed()
	if err != nil {
		return LUKSHeader{}, unavailable("device %s: %w", d.Path(), err)
	}
	content, err := s.probe(ctx, d)
	if err != nil {
		return LUKSHeader{}, err
	}
	var h LUKSHeader
	if isLUKS(content) {
		if h, err = s.readHeader(ctx, d); err != nil {
			return h, err
		}
	}
	if claimed {
		if err := s.claimedByMapping(d, h); err != nil {
			return h, err
		}
	}
	e := s.evidence(content)
	e.Device, e.Size = d.Path(), s.rec.Device.Size
	if format, err := e.decideLUKS(h); err != nil || !format {
		return h, err
	}
	if claimed {
		return h, unavailable("device %s is in use, and would have to be formatted", d.Path())
	}
	return s.luksFormat(ctx, d)
}

func isLUKS(c blockdev.Content) bool {
	return c.State == blockdev.Foreign && c.Type == "crypto_LUKS"
}

func (s *staging) readHeader(ctx context.Context, d Device) (LUKSHeader, error) {
	h, err := s.kernel.LUKSHeader(ctx, d)
	if err != nil {
		return h, unavailable("LUKS header of device %s: %w", d.Path(), err)
	}
	return h, nil
}

// claimedByMapping makes sure that what holds the device is its own mapping, which
// an earlier call opened, or a mount of it, which the probe knows for what it is.
func (s *staging) claimedByMapping(d Device, h LUKSHeader) error {
	if h.Valid {
		m, err := s.mapping(mappingName(s.req.ID, h.UUID))
		if err != nil || m != nil {
			return err // whether it is the right one is looked at when it is taken over
		}
	}
	return s.idle(d)
}

// luksFormat makes the header. That it was begun is durable before the first byte
// is written, as for mkfs; that it is new stands in the header itself, from its
// first write on and until something inside is worth keeping.
func (s *staging) luksFormat(ctx context.Context, d Device) (LUKSHeader, error) {
	var h LUKSHeader
	fsType := s.req.Capability.FSType
	if fsType == "" {
		fsType = s.opts.DefaultFS
	}
	if s.req.Capability.Block {
		fsType = ""
	}
	s.setFormat(formatStarted, fsType)
	if err := s.store.put(s.rec); err != nil {
		return h, err
	}
	if dev := s.src.Device; dev.Format != backends.FormatStarted || dev.FSType != fsType {
		if err := s.recordFormat(ctx, backends.FormatStarted, fsType); err != nil {
			return h, soften(err)
		}
	}
	if err := s.step(ctx, "luksFormat"); err != nil {
		return h, err
	}
	err := s.tools.do(ctx, "luksFormat", func() error { return s.kernel.LUKSFormat(ctx, d, *s.src.Device.Encryption) })
	if err != nil {
		return h, unavailable("luksFormat of %s: %w", d.Path(), err)
	}
	h, err = s.readHeader(ctx, d)
	if err == nil && (!h.Valid || h.Mark != LUKSNew || len(h.Slots) == 0) {
		err = unavailable("luksFormat of %s ended well, and the device holds %s", d.Path(), h)
	}
	return h, err
}

// markUsed makes the header remember that what is inside is somebody's from now
// on. A read-only user brings nothing.
func (s *staging) markUsed(ctx context.Context) error {
	if !s.crypt.unused() || s.readOnly {
		return nil
	}
	if err := s.step(ctx, "mark LUKS header"); err != nil {
		return err
	}
	d := s.crypt.outer
	if err := s.kernel.LUKSMark(ctx, d, LUKSUsed); err != nil {
		return unavailable("mark the LUKS header of %s: %w", d.Path(), err)
	}
	h, err := s.readHeader(ctx, d)
	if err == nil && h.Mark != LUKSUsed {
		err = unavailable("after marking it as used, device %s holds %s", d.Path(), h)
	}
	if err == nil {
		s.crypt.header = h
	}
	return err
}

// luksOpen opens the device, or takes over a mapping of it, and returns what is
// inside, identified.
func (s *staging) luksOpen(ctx context.Context, d Device, h LUKSHeader) (Device, error) {
	name := mappingName(s.req.ID, h.UUID)
	m, err := s.leftMapping(ctx, d, h, name)
	if err != nil {
		return nil, err
	}
	if s.rec.Mapping == nil || s.rec.Mapping.DMUUID != h.dmUUID(name) {
		s.rec.Mapping = &deviceRecord{Path: mapperDir + name, DMUUID: h.dmUUID(name)}
	}
	if m == nil {
		s.rec.Mapping.Num, s.rec.Mapping.DiskSeq = 0, 0
		if err := s.store.put(s.rec); err != nil { // so that it is closed, whatever comes
			return nil, err
		}
	}
	if err := s.withKey(ctx, d, m != nil, name); err != nil {
		return nil, err
	}
	return s.openMapping(ctx, s.rec, d, h)
}

// leftMapping is the mapping that an earlier call left open; nil when there is
// none, or when it was of the other access mode.
func (s *staging) leftMapping(ctx context.Context, d Device, h LUKSHeader, name string) (*LUKSMapping, error) {
	m, err := s.mapping(name)
	if m == nil || err != nil {
		return nil, err
	}
	if err := m.check(h.dmUUID(name), d.Num()); err != nil {
		return nil, err
	}
	in, err := s.openDevice(ctx, m.Path)
	if err != nil {
		return nil, err
	}
	ro, errRO := in.ReadOnly()
	claimed, errClaimed := in.Claimed()
	if err := errors.Join(errRO, errClaimed, in.Close()); err != nil {
		return nil, unavailable("device %s: %w", m.Path, err)
	}
	if claimed || ro == s.luksReadOnly() {
		return m, nil
	}
	if err := s.step(ctx, "luksClose"); err != nil {
		return nil, err
	}
	return nil, s.luksClose(ctx, name)
}

// luksReadOnly: a mapping of a device that is read-only cannot be writable.
func (s *staging) luksReadOnly() bool { return s.readOnly || s.rec.Device.ReadOnly }

// openMapping opens the mapping on r's device d, makes sure that it is the right
// one and as big as can be, and records it.
func (e *Engine) openMapping(ctx context.Context, r *record, d Device, h LUKSHeader) (Device, error) {
	name := r.mappingName()
	m, err := e.mapping(name)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, unavailable("device %s is not open as %s", d.Path(), name)
	}
	if err := m.check(r.Mapping.DMUUID, d.Num()); err != nil {
		return nil, err
	}
	in, err := e.openDevice(ctx, m.Path)
	if err != nil {
		return nil, err
	}
	r.Mapping.Path = m.Path
	err = in.Verify(ctx, backends.Identity{DMUUID: r.Mapping.DMUUID})
	if err == nil && in.Num() != m.Num {
		err = unavailable("device %s has number %s, and the mapping has %s", m.Path, devName(in.Num()), devName(m.Num))
	}
	if err == nil {
		err = e.growMapping(ctx, d, in, h, name)
	}
	if err == nil {
		err = r.Mapping.describe(in)
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// growMapping makes the mapping as big as what the header leaves of the device.
func (e *Engine) growMapping(ctx context.Context, d, in Device, h LUKSHeader, name string) error {
	outer, err := d.Size()
	if err != nil {
		return unavailable("size of device %s: %w", d.Path(), err)
	}
	want := h.room(outer)
	if size, err := in.Size(); err != nil || size >= want {
		return unavailableIf("size of device "+in.Path(), err)
	}
	if err := e.step(ctx, "luksResize"); err != nil {
		return err
	}
	if err := e.kernel.LUKSResize(ctx, name); err != nil {
		return unavailable("resize %s: %w", in.Path(), err)
	}
	size, err := in.Size()
	if err == nil && size < want {
		err = unavailable("after resizing it, %s has %d bytes, and %d were wanted", in.Path(), size, want)
	}
	return unavailableIf("size of device "+in.Path(), err)
}

func unavailableIf(what string, err error) error {
	if err == nil || errors.Is(err, backends.ErrUnavailable) {
		return err
	}
	return unavailable("%s: %w", what, err)
}

// expandMapping opens the mapping of an expanded device, as big as that by now.
func (e *Engine) expandMapping(ctx context.Context, r *record, d Device) (Device, error) {
	h, err := e.kernel.LUKSHeader(ctx, d)
	if err == nil && !h.Valid {
		err = errors.New("it is damaged")
	}
	if err != nil {
		return nil, unavailable("LUKS header of device %s: %w", d.Path(), err)
	}
	return e.openMapping(ctx, r, d, h)
}

// mapping is the device-mapper device of that name, nil when there is none.
func (e *Engine) mapping(name string) (*LUKSMapping, error) {
	all, err := e.kernel.LUKSMappings(name)
	if err != nil {
		return nil, unavailable("look for mapping %s: %w", name, err)
	}
	i := slices.IndexFunc(all, func(m LUKSMapping) bool { return m.Name == name })
	if i < 0 {
		return nil, nil
	}
	return &all[i], nil
}

// check makes sure that a mapping is of that LUKS device, and lies on the device
// with this number and on no other.
func (m *LUKSMapping) check(uuid string, on uint64) error {
	switch {
	case m.UUID != uuid:
		return refuse("mapping %s is %s, and the volume's would be %s; it is left alone", m.Name, m.UUID, uuid)
	case len(m.On) != 1 || m.On[0] != on:
		var names []string
		for _, dev := range m.On {
			names = append(names, devName(dev))
		}
		return refuse("mapping %s lies on %v, and the volume's device is %s; it is left alone", m.Name, names, devName(on))
	}
	return nil
}
