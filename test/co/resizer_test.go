package co

import (
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/csidriver"
)

// resizer is external-resizer v2.1.0-41-gbeef24d8.
//
//   - Both calls have 10 s (cmd/csi-resizer/main.go --timeout), and are repeated after
//     1 s, 2 s, ... 5 min.
//   - After an error that is not final the size that was asked for is asked for again,
//     whatever the user wants by now; after a final one what the user wants
//     (pkg/controller/expand_and_recover.go, pkg/util/util.go IsFinalError).
//     INVALID_ARGUMENT, OUT_OF_RANGE and NOT_FOUND are infeasible: retried slowly.
//   - ControllerModifyVolume likewise: the class that was tried is kept while its end is
//     uncertain (pkg/modifycontroller/modify_volume.go), with --extra-modify-metadata.
type resizer struct {
	w       *world
	c       *clients
	sizes   map[string]int64  // asked for, and not ended; guarded by w.mu
	classes map[string]string // likewise
}

func runResizer(w *world) {
	r := &resizer{w: w, c: w.client("resizer", csidriver.ServeController), sizes: map[string]int64{}, classes: map[string]string{}}
	w.controller(sidecarQueue, func(a *api) []string { return sortedKeys(a.claims) }, r.syncSize)
	w.controller(sidecarQueue, func(a *api) []string { return sortedKeys(a.claims) }, r.syncClass)
}

const resizeTimeout = 10 * time.Second

func (r *resizer) objects(name string) (*claim, *pv) {
	return snap(r.w, func(a *api) *claim { return a.claims[name] }), snap(r.w, func(a *api) *pv { return a.pvs[volumeName(name)] })
}

func (r *resizer) syncSize(name string) error {
	c, v := r.objects(name)
	if c == nil || v == nil || v.deleting {
		return nil
	}
	size := c.size
	if asked := read(r.w, func(*api) int64 { return r.sizes[name] }); asked > 0 {
		size = asked
	}
	if size <= v.size {
		return nil
	}
	r.w.update(func(*api) { r.sizes[name] = size })
	ctx, cancel := timeout(resizeTimeout)
	defer cancel()
	resp, err := r.c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: v.handle, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapability: r.w.capability(), Secrets: secrets(),
	})
	r.w.update(func(a *api) {
		if err == nil || finalForSidecar(err) {
			delete(r.sizes, name)
		}
		if o := a.pvs[v.name]; o != nil && err == nil {
			o.size, o.growOnNode = resp.GetCapacityBytes(), resp.GetNodeExpansionRequired()
		}
	})
	return err
}

// finalForSidecar is IsFinalError of attacher, resizer and snapshotter.
func finalForSidecar(err error) bool {
	return !slices.Contains([]codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted}, status.Code(err))
}

func (r *resizer) syncClass(name string) error {
	c, v := r.objects(name)
	if c == nil || v == nil || v.deleting {
		return nil
	}
	class := c.class
	if tried := read(r.w, func(*api) string { return r.classes[name] }); tried != "" {
		class = tried
	}
	if class == "" || class == v.class {
		return nil
	}
	ctx, cancel := timeout(resizeTimeout)
	defer cancel()
	_, err := r.c.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
		VolumeId: v.handle, Secrets: secrets(), MutableParameters: map[string]string{
			"tier": class, "csi.storage.k8s.io/pvc/name": name, "csi.storage.k8s.io/pv/name": v.name,
		},
	})
	r.w.update(func(a *api) {
		if err != nil && !finalForSidecar(err) {
			r.classes[name] = class
			return
		}
		delete(r.classes, name)
		if o := a.pvs[v.name]; o != nil && err == nil {
			o.class = class
		}
	})
	return err
}
