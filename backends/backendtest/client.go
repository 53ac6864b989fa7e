package backendtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/csikit/csikit/backends"
)

// name is a name that this check did not use yet.
func (t *T) name() string {
	t.made++
	return fmt.Sprintf("pvc-%d", t.made)
}

// fingerprint is one as csidriver makes them: as long as they may be.
const fingerprint = "1.abcdefghijklmnopqrstuvwxyz234567abcdef"

// request asks for an ordinary volume.
func (t *T) request(name string) backends.CreateVolumeRequest {
	size := t.cfg.size(&t.b.Traits)
	return backends.CreateVolumeRequest{
		Name: name, Size: size, Range: backends.CapacityRange{Required: size},
		Capabilities: []backends.Capability{t.capability()},
		Parameters:   t.cfg.parameters(&t.b.Traits),
		Fingerprint:  fingerprint, Secrets: t.cfg.secrets(),
	}
}

// twin is a request that shares no map with req.
func twin(req backends.CreateVolumeRequest) backends.CreateVolumeRequest {
	req.Parameters = maps.Clone(req.Parameters)
	req.Mutable = maps.Clone(req.Mutable)
	req.Capabilities = slices.Clone(req.Capabilities)
	return req
}

// made of nothing, of a snapshot or of a volume.
type origin struct {
	snapshot *backends.Snapshot
	volume   *backends.Volume
}

func (o origin) source() backends.ContentSource {
	switch {
	case o.snapshot != nil:
		return backends.ContentSource{SnapshotID: o.snapshot.ID}
	case o.volume != nil:
		return backends.ContentSource{VolumeID: o.volume.ID}
	}
	return backends.ContentSource{}
}

// provision is CreateVolume as csidriver does it.
func (t *T) provision(ctx context.Context, req backends.CreateVolumeRequest, from origin) (*backends.Volume, error) {
	v, err := t.find(ctx, req)
	if v != nil || err != nil {
		return v, err
	}
	if t.c.VolumeChecker != nil {
		err := t.c.VolumeChecker.CheckVolume(ctx, backends.CheckVolumeRequest{
			Capabilities: req.Capabilities, Parameters: maps.Clone(req.Parameters), Mutable: maps.Clone(req.Mutable), Size: req.Size,
			Topology: req.Topology, Source: from.source(), Secrets: req.Secrets,
		})
		if t.watch("CheckVolume", err) != nil {
			return nil, err
		}
	}
	switch {
	case from.snapshot != nil:
		v, err = t.c.Snapshotter.RestoreSnapshot(ctx, *from.snapshot, twin(req))
	case from.volume != nil:
		v, err = t.c.Cloner.CloneVolume(ctx, *from.volume, twin(req))
	default:
		v, err = t.b.Controller.CreateVolume(ctx, twin(req))
	}
	if errors.Is(err, backends.ErrExists) {
		return t.find(ctx, req)
	}
	if t.watch("CreateVolume "+req.Name, err) != nil {
		return nil, err
	}
	if v == nil {
		return nil, errors.New("CreateVolume gave no volume and no error")
	}
	return v, nil
}

// find gives the volume of that name, nil if the name is free.
func (t *T) find(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	v, err := t.b.Controller.FindVolume(ctx, twin(req))
	var nf *backends.NotFoundError
	if errors.As(t.watch("FindVolume", err), &nf) && nf.Kind == backends.KindVolume && slices.Contains(t.names(req), nf.ID) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("FindVolume: %w", err)
	}
	if v == nil {
		return nil, errors.New("FindVolume gave no volume and no error")
	}
	return v, nil
}

// names are what FindVolume may call a volume that is not there.
func (t *T) names(req backends.CreateVolumeRequest) []string {
	names := []string{req.Name}
	if t.c.VolumeIDer != nil {
		if id, err := t.c.VolumeIDer.VolumeID(twin(req)); err == nil {
			names = append(names, id)
		}
	}
	return names
}

// create makes an ordinary volume, or fails the check.
func (t *T) create(name string) *backends.Volume {
	t.Helper()
	v, err := t.provision(t.Context(), t.request(name), origin{})
	if err != nil {
		t.Fatalf("create volume %q: %v", name, err)
	}
	return v
}

// volume looks a volume up.
func (t *T) volume(ctx context.Context, id string) (*backends.Volume, error) {
	v, err := t.b.Controller.Volume(ctx, backends.VolumeRequest{ID: id, Secrets: t.cfg.secrets()})
	if err == nil && v == nil {
		err = errors.New("no volume and no error")
	}
	return v, t.watch("Volume", err)
}

// lookup is volume, of one that must be there.
func (t *T) lookup(id string) *backends.Volume {
	t.Helper()
	v, err := t.volume(t.Context(), id)
	if err != nil {
		t.Fatalf("volume %s: %v", id, err)
	}
	return v
}

// remove deletes a volume as csidriver does: one that is gone is a success.
func (t *T) remove(ctx context.Context, id string) error {
	err := t.b.Controller.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: id, Secrets: t.cfg.secrets()})
	return ignoreMissing(t.watch("DeleteVolume", err), backends.VolumeNotFound(id))
}

// ignoreMissing is nil when err says exactly what missing says.
func ignoreMissing(err, missing error) error {
	got, ok := errors.AsType[*backends.NotFoundError](err)
	want, _ := errors.AsType[*backends.NotFoundError](missing)
	if ok && *got == *want {
		return nil
	}
	return err
}

// gone fails the check unless the volume is not found, by ID and by name.
func (t *T) gone(req backends.CreateVolumeRequest, id string) {
	t.Helper()
	if id != "" {
		_, err := t.volume(t.Context(), id)
		t.wantNotFound("Volume of a deleted volume", err, backends.KindVolume, id)
	}
	_, err := t.b.Controller.FindVolume(t.Context(), twin(req))
	t.wantNotFound("FindVolume of a free name", err, backends.KindVolume, t.names(req)...)
	if t.c.VolumeLister != nil && id != "" && slices.Contains(t.list(), id) {
		t.Errorf("volume %s is gone, and still in the list", id)
	}
}

// list gives the IDs of all volumes.
func (t *T) list() []string {
	t.Helper()
	var ids []string
	token := ""
	for range 10_000 {
		vols, next, err := t.c.VolumeLister.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Token: token, Limit: 100}})
		t.must("ListVolumes", err)
		for _, v := range vols {
			ids = append(ids, v.ID)
		}
		if token = next; next == "" {
			return ids
		}
	}
	t.Fatal("ListVolumes does not come to an end")
	return nil
}
