package co

import (
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/csidriver"
)

// attacher is external-attacher v4.12.0-39-ge6106024.
//
//   - Both calls have 15 s (cmd/csi-attacher/main.go --timeout), and are repeated after
//     1 s, 2 s, ... 5 min after every code. The finalizer is set before the first
//     call, and goes with an OK of ControllerUnpublishVolume alone
//     (pkg/controller/csi_handler.go csiAttach, csiDetach): a final code is believed
//     of nothing.
//   - With LIST_VOLUMES_PUBLISHED_NODES all volumes are listed once a minute, and an
//     attachment that is otherwise than listed is attached or detached again
//     (ReconcileVA, --reconcile-sync).
type attacher struct {
	w     *world
	c     *clients
	force map[string]bool // guarded by w.mu
}

const attachTimeout = 15 * time.Second

func runAttacher(w *world) {
	a := &attacher{w: w, c: w.client("attacher", csidriver.ServeController), force: map[string]bool{}}
	w.controller(sidecarQueue, func(a *api) []string { return sortedKeys(a.vas) }, a.sync)
	w.every(time.Minute, a.relist)
}

func (a *attacher) sync(name string) error {
	va := snap(a.w, func(o *api) *attachment { return o.vas[name] })
	if va == nil {
		return nil
	}
	a.w.mu.Lock()
	force := a.force[name]
	delete(a.force, name)
	a.w.mu.Unlock()
	v := snap(a.w, func(o *api) *pv { return o.pvs[name] })
	switch {
	case va.deleting && !va.finalizer && !force:
		a.w.update(func(o *api) { delete(o.vas, name) })
		return nil
	case va.deleting:
		return a.detach(name, v.handle)
	case va.attached && !force:
		return nil
	}
	return a.attach(name, v)
}

func (a *attacher) attach(name string, v *pv) error {
	a.w.update(func(o *api) { o.vas[name].finalizer = true })
	ctx, cancel := timeout(attachTimeout)
	defer cancel()
	resp, err := a.c.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: v.handle, NodeId: thisNode, VolumeCapability: a.w.capability(), VolumeContext: v.context, Secrets: secrets(),
	})
	if err != nil {
		return err
	}
	a.w.update(func(o *api) { o.vas[name].attached, o.vas[name].context = true, resp.GetPublishContext() })
	return nil
}

func (a *attacher) detach(name, handle string) error {
	ctx, cancel := timeout(attachTimeout)
	defer cancel()
	_, err := a.c.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: handle, NodeId: thisNode, Secrets: secrets()})
	if err != nil {
		return err
	}
	a.w.update(func(o *api) { delete(o.vas, name) })
	return nil
}

func (a *attacher) relist() {
	ctx, cancel := timeout(attachTimeout)
	defer cancel()
	published, token := map[string][]string{}, ""
	for {
		resp, err := a.c.ListVolumes(ctx, &csi.ListVolumesRequest{StartingToken: token})
		if err != nil {
			return
		}
		for _, e := range resp.GetEntries() {
			published[e.GetVolume().GetVolumeId()] = e.GetStatus().GetPublishedNodeIds()
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
	}
	a.w.update(func(o *api) {
		for name, va := range o.vas {
			if v := o.pvs[name]; v != nil && va.attached != slices.Contains(published[v.handle], thisNode) {
				a.force[name] = true
			}
		}
	})
}
