package nfs

import (
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// secretOptions adds the mount options that a request has as a secret, as
// csi-driver-nfs wants them for calls without parameters.
func secretOptions(s Share, secrets backends.Secrets) (Share, error) {
	v, _ := secrets.Lookup(paramOptions)
	if s.LocalDir != "" || v == "" {
		return s, nil
	}
	list, err := splitMountOptions(v)
	if err != nil {
		return s, fmt.Errorf("%w: secret %s: what it holds are no mount options", backends.ErrInvalid, paramOptions)
	}
	return s.with(list), nil
}

// open decodes a volume's ID and finds its share.
func (b *Backend) open(id string, secrets backends.Secrets) (handle, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return handle{}, err
	}
	h, err := b.decode(id, volumeTag, backends.VolumeNotFound(id))
	if err != nil {
		return handle{}, err
	}
	h.share, err = secretOptions(h.share, secrets)
	return h, err
}

// Volume looks a volume up by ID.
func (b *Backend) Volume(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	h, err := b.open(req.ID, req.Secrets)
	if err != nil {
		return nil, err
	}
	if h.legacy() {
		return b.legacyVolume(ctx, req.ID, h)
	}
	out, err := onShare[findOut](ctx, b, h.share, "", opFind, findIn{b.where(), h.key})
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", req.ID, err)
	}
	return b.found(out.Marker, h.share, req.ID)
}

// found is the volume of a marker; nil: there is none.
func (b *Backend) found(m *marker, s Share, name string) (*backends.Volume, error) {
	switch {
	case m == nil:
		return nil, backends.VolumeNotFound(name)
	case m.State != stateReady:
		return nil, unavailable("volume %s is %s", name, m.State)
	}
	return b.public(m, s), nil
}

// public is the volume as csikit knows it.
func (b *Backend) public(m *marker, s Share) *backends.Volume {
	return &backends.Volume{
		ID: handle{tag: volumeTag, share: s, key: m.Key}.String(), Name: m.Name, Capacity: m.Size, Fingerprint: m.Fingerprint,
		Source: m.source(), Context: contextOf(s, m.Key, m.SubDir, m.Options),
	}
}

func (b *Backend) legacyVolume(ctx context.Context, id string, h handle) (*backends.Volume, error) {
	there, err := onShare[bool](ctx, b, h.share, "", opLegacy, legacyIn{b.where(), id, h.subDir, h.onDelete})
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", id, err)
	}
	if !there {
		return nil, backends.VolumeNotFound(id)
	}
	return &backends.Volume{ID: id, Context: contextOf(h.share, "", h.subDir, nil)}, nil
}

// plan is a CreateVolumeRequest, read.
type plan struct {
	p      params
	share  Share
	handle handle
	subDir string
}

func (b *Backend) plan(req backends.CreateVolumeRequest) (pl plan, err error) {
	if err := b.serves(ControllerHalf); err != nil {
		return pl, err
	}
	if pl.p, err = b.parseParams(req.Parameters); err != nil {
		return pl, err
	}
	if pl.share, err = b.resolve(pl.p); err != nil {
		return pl, err
	}
	if pl.share, err = secretOptions(pl.share, req.Secrets); err != nil {
		return pl, err
	}
	pl.handle = handle{tag: volumeTag, share: pl.share, key: keyOf(req.Name)}
	if err := pl.handle.fits(); err != nil {
		return pl, err
	}
	if pl.p.subDir == "" {
		pl.subDir = defaultSubDir(req.Name)
		return pl, nil
	}
	pl.subDir, err = expandSubDir(pl.p.subDir, req.Name, req.Owner)
	return pl, err
}

// VolumeID is pure.
func (b *Backend) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	pl, err := b.plan(req)
	return pl.handle.String(), err
}

// FindVolume looks a volume up by name.
func (b *Backend) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	pl, err := b.plan(req)
	if err != nil {
		return nil, err
	}
	out, err := onShare[findOut](ctx, b, pl.share, "", opFind, findIn{b.initWhere(), pl.handle.key})
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", req.Name, err)
	}
	if out.Marker == nil || out.Marker.State != stateReady {
		if err := b.dropOrphan(ctx, pl, out.Marker, req.Secrets); err != nil {
			return nil, fmt.Errorf("volume %q: %w", req.Name, err)
		}
		return nil, backends.VolumeNotFound(req.Name)
	}
	return b.public(out.Marker, pl.share), nil
}

// dropOrphan undoes a half-made copy whose source is gone: no call makes it any more.
// The CO is told that the source is not found, forgets the volume, and would never ask
// for its deletion.
func (b *Backend) dropOrphan(ctx context.Context, pl plan, m *marker, secrets backends.Secrets) (err error) {
	if m == nil || m.State != stateCreating || m.Source == nil {
		return nil
	}
	if m.Source.SnapshotID != "" {
		_, err = b.Snapshot(ctx, backends.SnapshotRequest{ID: m.Source.SnapshotID, Secrets: secrets})
	} else {
		_, err = b.Volume(ctx, backends.VolumeRequest{ID: m.Source.VolumeID, Secrets: secrets})
	}
	if !errors.Is(err, backends.ErrNotFound) {
		return nil // it is there, or CreateVolume says what is wrong with it
	}
	if _, err := onShare[unmakeOut](ctx, b, pl.share, "", opUnmake, unmakeIn{b.where(), pl.handle.key, true}); err != nil {
		return err
	}
	b.purge(pl.share)
	return nil
}

// CheckVolume refuses parameters that no volume can have.
func (b *Backend) CheckVolume(_ context.Context, req backends.CheckVolumeRequest) error {
	for _, c := range req.Capabilities {
		if c.Block {
			return fmt.Errorf("%w: a volume is a directory, and no raw block device", backends.ErrInvalid)
		}
	}
	p, err := b.parseParams(req.Parameters)
	if err != nil {
		return err
	}
	if req.Volume != nil && len(req.Parameters) == 0 {
		return nil
	}
	if _, err = b.resolve(p); err != nil || p.subDir == "" {
		return err
	}
	// Which names will be put in is not known here: any will do to read the rest.
	_, err = expandSubDir(p.subDir, "pv", backends.Owner{PVC: "pvc", PVCNamespace: "ns", PV: "pv"})
	return err
}

// CreateVolume makes the directory of a volume.
func (b *Backend) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return b.create(ctx, req, makeIn{}, nil)
}

// create makes a volume; in says what it is a copy of.
func (b *Backend) create(ctx context.Context, req backends.CreateVolumeRequest, in makeIn, source *origin) (*backends.Volume, error) {
	pl, err := b.plan(req)
	if err != nil {
		return nil, err
	}
	in.Marker = marker{
		Key: pl.handle.key, Name: req.Name, SubDir: pl.subDir, OnDelete: pl.p.onDelete, Size: b.size(req),
		Fingerprint: req.Fingerprint, Options: pl.p.options, Source: source,
	}
	return b.makeVolume(ctx, pl, in)
}

func (b *Backend) makeVolume(ctx context.Context, pl plan, in makeIn) (*backends.Volume, error) {
	if err := b.fits(ctx, pl.share, in.Marker.Size); err != nil {
		return nil, err
	}
	in.where = b.initWhere()
	in.Adopt, in.Mode, in.UID, in.GID = pl.p.adopt, pl.p.mode, pl.p.uid, pl.p.gid
	in.Project, in.Hold = b.o.Quota == QuotaProject, b.o.Quota == QuotaHook
	m, err := b.makeTask(ctx, pl.share, in)
	if err == nil && in.Hold {
		if err := b.hookQuota(ctx, pl.share, m.SubDir, m.Size); err != nil {
			return nil, err
		}
		in.Hold = false
		m, err = b.makeTask(ctx, pl.share, in)
	}
	if err != nil {
		return nil, err
	}
	return b.public(m, pl.share), nil
}

func (b *Backend) makeTask(ctx context.Context, s Share, in makeIn) (*marker, error) {
	lane := ""
	if in.From != "" || in.FromSnap != "" {
		l, leave, err := b.copyLane(ctx)
		if err != nil {
			return nil, err
		}
		defer leave()
		lane = l
	}
	m, err := onShare[*marker](ctx, b, s, lane, opMake, in)
	if err != nil {
		b.purge(s) // what was undone went to the trash
		return nil, fmt.Errorf("create volume %q: %w", in.Marker.Name, err)
	}
	return m, nil
}

// size of a volume: without quota it has none, and nothing is promised.
func (b *Backend) size(req backends.CreateVolumeRequest) int64 {
	if b.o.Quota == QuotaNone {
		return 0
	}
	return req.Size
}

// fits refuses a size that the file system could not hold even if it were empty.
func (b *Backend) fits(ctx context.Context, s Share, size int64) error {
	if size == 0 {
		return nil
	}
	free, err := onShare[freeOut](ctx, b, s, "", opFree, freeIn{b.where()})
	if err != nil {
		return err
	}
	if size > free.Total {
		return fmt.Errorf("%w: %d bytes were asked for, and %s has %d", backends.ErrNoSpace, size, s, free.Total)
	}
	return nil
}

// DeleteVolume deletes, archives or retains a volume, as its class said.
func (b *Backend) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	h, err := b.open(req.ID, req.Secrets)
	if err != nil {
		return err
	}
	if h.legacy() {
		err = b.deleteLegacy(ctx, req.ID, h)
	} else {
		err = b.unmake(ctx, h.share, h.key, req.ID)
	}
	if err != nil && !errors.Is(err, backends.ErrNotFound) {
		return fmt.Errorf("delete volume %s: %w", req.ID, err)
	}
	return err
}

func (b *Backend) unmake(ctx context.Context, s Share, key, id string) error {
	if b.o.Quota == QuotaHook {
		out, err := onShare[findOut](ctx, b, s, "", opFind, findIn{b.where(), key})
		if err == nil && out.Marker != nil {
			err = b.hookQuota(ctx, s, out.Marker.SubDir, 0)
		}
		if err != nil {
			return err
		}
	}
	out, err := onShare[unmakeOut](ctx, b, s, "", opUnmake, unmakeIn{b.where(), key, false})
	if err == nil && !out.Found {
		return backends.VolumeNotFound(id)
	}
	b.usage.forget(id)
	b.purge(s)
	return err
}

func (b *Backend) deleteLegacy(ctx context.Context, id string, h handle) error {
	if h.onDelete == onDeleteRetain {
		_, err := b.legacyVolume(ctx, id, h)
		return err
	}
	if b.o.Legacy != LegacyDelete {
		return fmt.Errorf("%w: this driver was not told to delete what csi-driver-nfs made (Options.Legacy)", backends.ErrPrecondition)
	}
	out, err := onShare[unmakeOut](ctx, b, h.share, "", opLegacyDelete, legacyIn{b.where(), id, h.subDir, h.onDelete})
	if err == nil && !out.Found {
		return backends.VolumeNotFound(id)
	}
	b.purge(h.share)
	return err
}

// CloneVolume makes a volume of another one as it is now: each file as it is when it
// is copied.
func (b *Backend) CloneVolume(ctx context.Context, source backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	pl, err := b.plan(req)
	if err != nil {
		return nil, err
	}
	h, err := b.open(source.ID, req.Secrets)
	if err != nil {
		return nil, err
	}
	if !h.share.same(pl.share) {
		return nil, fmt.Errorf("%w: volume %s is on share %s, and a copy of it on %s was asked for", backends.ErrInvalid, source.ID, h.share, pl.share)
	}
	in := makeIn{From: h.subDir}
	if !h.legacy() {
		out, err := onShare[findOut](ctx, b, h.share, "", opFind, findIn{b.where(), h.key})
		if err != nil {
			return nil, err
		}
		if _, err := b.found(out.Marker, h.share, source.ID); err != nil {
			return nil, err
		}
		in.From, in.FromKey = out.Marker.SubDir, h.key
	}
	return b.create(ctx, req, in, &origin{VolumeID: source.ID})
}

// ExpandVolume raises the quota of a volume.
func (b *Backend) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
	h, err := b.open(req.ID, req.Secrets)
	if err != nil {
		return 0, err
	}
	if h.legacy() {
		return 0, fmt.Errorf("%w: %s has no quota", backends.ErrPrecondition, req.ID)
	}
	if err := b.fits(ctx, h.share, req.Size); err != nil {
		return 0, err
	}
	out, err := onShare[findOut](ctx, b, h.share, "", opFind, findIn{b.where(), h.key})
	if err != nil {
		return 0, err
	}
	if _, err := b.found(out.Marker, h.share, req.ID); err != nil {
		return 0, err
	}
	if err := b.hookQuota(ctx, h.share, out.Marker.SubDir, max(out.Marker.Size, req.Size)); err != nil {
		return 0, err
	}
	done, err := onShare[*marker](ctx, b, h.share, "", opResize, resizeIn{b.where(), h.key, req.Size, b.o.Quota == QuotaProject})
	if err != nil {
		return 0, fmt.Errorf("expand volume %s: %w", req.ID, err)
	}
	return done.Size, nil
}

// FilterController takes back what this configuration has not: it can expand only
// what has a size, a group needs the hook, and of shares that any class may name
// nobody knows all.
func (b *Backend) FilterController(f *backends.ControllerFeatures) {
	if b.o.Quota == QuotaNone {
		f.Expander = nil
	}
	if !b.o.HookSnapshots {
		f.GroupSnapshotter, f.GroupSnapshotIDer = nil, nil
	}
	if b.o.AnyShare {
		f.VolumeLister, f.SnapshotLister, f.HealthLister = nil, nil, nil
	}
}

var (
	_ backends.Controller       = (*Backend)(nil)
	_ backends.VolumeIDer       = (*Backend)(nil)
	_ backends.VolumeChecker    = (*Backend)(nil)
	_ backends.Cloner           = (*Backend)(nil)
	_ backends.Expander         = (*Backend)(nil)
	_ backends.ControllerFilter = (*Backend)(nil)
)
