package co

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/csidriver"
)

// provisioner is external-provisioner v6.3.0-56-g0688604fa over
// sig-storage-lib-external-provisioner v13.0.0, with --extra-create-metadata.
//
//   - CreateVolume has 10 s (cmd/csi-provisioner/csi-provisioner.go --timeout), and is
//     asked for again after 1 s, 2 s, ... 5 min, without an end.
//   - CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE and ABORTED mean "in the background":
//     the claim is kept in memory, and asked for again even when its object is gone
//     (pkg/controller/controller.go checkError; lib controller/controller.go
//     syncClaim, syncClaimHandler). Every other code means "finished": the claim is
//     forgotten, and asked for again only if its object is there.
//   - What has less capacity than was asked for, or no content source though one was
//     asked for, is deleted once and made anew (Provision, cleanupVolume).
//   - DeleteVolume is repeated after every code; not while an attachment is there
//     (canDeleteVolume).
type provisioner struct {
	w        *world
	c        *clients
	progress map[string]*claim // claimsInProgress; guarded by w.mu
}

const provisionTimeout = 10 * time.Second

func runProvisioner(w *world) *provisioner {
	p := &provisioner{w: w, c: w.client("provisioner", csidriver.ServeController), progress: map[string]*claim{}}
	w.lost = append(w.lost, p.restart)
	w.controller(sidecarQueue, p.claimKeys, p.syncClaim)
	w.controller(sidecarQueue, func(a *api) []string { return sortedKeys(a.pvs) }, p.syncVolume)
	return p
}

// restart forgets what is in progress. That leaks by itself the volume of a claim
// which was deleted meanwhile; nobody but the provisioner could prevent it, and so
// that case is left out.
func (p *provisioner) restart() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	maps.DeleteFunc(p.progress, func(name string, _ *claim) bool { return p.w.api.claims[name] != nil })
}

// claimKeys are called with w.mu held.
func (p *provisioner) claimKeys(a *api) []string {
	keys := sortedKeys(a.claims)
	for name := range p.progress {
		if !slices.Contains(keys, name) {
			keys = append(keys, name)
		}
	}
	return keys
}

func (p *provisioner) syncClaim(name string) error {
	c := snap(p.w, func(a *api) *claim {
		if a.claims[name] != nil {
			return a.claims[name]
		}
		return p.progress[name]
	})
	if c == nil || c.bound {
		return nil
	}
	if exists := read(p.w, func(a *api) bool { return a.pvs[volumeName(name)] != nil }); exists {
		p.finished(name, nil)
		return nil
	}
	background, err := p.provision(c)
	if background {
		p.w.update(func(*api) { p.progress[name] = c })
		return err
	}
	p.finished(name, err)
	return err
}

// finished forgets the claim.
func (p *provisioner) finished(name string, err error) {
	p.w.update(func(a *api) {
		delete(p.progress, name)
		if c := a.claims[name]; c != nil && err != nil {
			c.lastErr = err.Error()
		}
	})
}

func volumeName(claim string) string { return "pvc-" + claim }

func (p *provisioner) provision(c *claim) (background bool, err error) {
	req := p.request(c)
	ctx, cancel := timeout(provisionTimeout)
	defer cancel()
	resp, err := p.c.CreateVolume(ctx, req)
	if err != nil {
		return slices.Contains([]codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted}, status.Code(err)), err
	}
	v := resp.GetVolume()
	size := v.GetCapacityBytes()
	switch {
	case size == 0:
		size = c.size
	case size < c.size:
		return true, p.cleanUp(v.GetVolumeId(), fmt.Errorf("%d bytes instead of %d", size, c.size))
	}
	if req.GetVolumeContentSource() != nil && v.GetContentSource() == nil {
		return true, p.cleanUp(v.GetVolumeId(), errors.New("volume content source missing"))
	}
	attributes := map[string]string{"storage.kubernetes.io/csiProvisionerIdentity": "1-mem.csikit.dev"}
	maps.Copy(attributes, v.GetVolumeContext())
	p.w.update(func(a *api) {
		o := &pv{name: req.GetName(), handle: v.GetVolumeId(), context: attributes, size: size}
		a.pvs[o.name] = o
		if c := a.claims[c.name]; c != nil {
			c.bound = true
		} else {
			o.deleting = true // the PV controller releases it
		}
	})
	return false, nil
}

func (p *provisioner) request(c *claim) *csi.CreateVolumeRequest {
	req := &csi.CreateVolumeRequest{
		Name: volumeName(c.name), CapacityRange: &csi.CapacityRange{RequiredBytes: c.size},
		VolumeCapabilities: []*csi.VolumeCapability{p.w.capability()}, Secrets: secrets(),
		Parameters: map[string]string{
			"media": "ssd", "csi.storage.k8s.io/pvc/name": c.name, "csi.storage.k8s.io/pvc/namespace": "default",
			"csi.storage.k8s.io/pv/name": volumeName(c.name),
		},
	}
	switch {
	case c.snapshot != "":
		req.VolumeContentSource = ofSnapshot(&fixture{snap: c.snapshot})
	case c.source != "":
		req.VolumeContentSource = ofVolume(&fixture{source: c.source})
	}
	return req
}

func (p *provisioner) cleanUp(id string, cause error) error {
	ctx, cancel := timeout(provisionTimeout)
	defer cancel()
	_, err := p.c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id, Secrets: secrets()})
	return errors.Join(cause, err)
}

func (p *provisioner) syncVolume(name string) error {
	v := snap(p.w, func(a *api) *pv { return a.pvs[name] })
	if v == nil || !v.deleting {
		return nil
	}
	if read(p.w, func(a *api) bool { return a.vas[name] != nil }) {
		return errors.New("still attached")
	}
	ctx, cancel := timeout(provisionTimeout)
	defer cancel()
	if _, err := p.c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.handle, Secrets: secrets()}); err != nil {
		return err
	}
	p.w.update(func(a *api) { delete(a.pvs, name) })
	return nil
}
