package co

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/csidriver"
)

// nomad is hashicorp/nomad v1.11.0-rc.1-589-gaa026cc99c: its servers, one client
// agent, and an operator.
//
//   - Each call is tried three times with 2 min each, after 100 ms, 200 ms, and only
//     after UNAVAILABLE, RESOURCE_EXHAUSTED and a try that took too long; everything
//     else, ABORTED too, fails at once (client/csi_endpoint.go,
//     client/pluginmanager/csimanager/volume.go, go-grpc-middleware retry). There are no
//     final codes: nothing is concluded from one.
//   - An allocation that fails to mount is given up, and another one takes its place,
//     with a target of its own; the staging path is of the volume and its usage
//     (stagingDirForVolume). What is mounted there is not staged again (stageVolume).
//   - Unpublish and unstage of an allocation are repeated, by the client with pauses of
//     1 s to 1 min (client/allocrunner/csi_hook.go unmountWithRetry) and then by the
//     volume watcher; NOT_FOUND is OK, and so is every code if the target could be
//     removed (unpublishVolume). The controller is asked to detach after that.
//   - Create and delete are commands of people, who repeat them.
type nomad struct {
	w       *world
	control *clients
	node    *clients
	id      string
	context map[string]string
	attach  map[string]string
}

func nomadStory() *scenario {
	places := append(controllerPlaces(), nodePlaces()...)
	return &scenario{name: "nomad", places: places, tell: func(w *world) {
		n := &nomad{w: w, control: w.client("nomad", csidriver.ServeController), node: w.client("nomad", csidriver.ServeNode)}
		w.persist("create", queue{time.Minute, time.Minute}, n.create)
		for alloc := 0; !n.place(fmt.Sprint("alloc", alloc)); alloc++ {
			if alloc == 50 {
				w.fail("no allocation gets its volume")
				break
			}
			w.sleep(30 * time.Second)
		}
		// One more beside it, and then both stop.
		second := n.mount("second") == nil
		w.note("---- mounted, the second %v", second)
		w.sleep(5 * time.Minute)
		n.release("second")
		for _, d := range n.targets() {
			n.release(d)
		}
		w.persist("list", queue{time.Minute, time.Minute}, n.list)
		w.persist("delete", queue{time.Minute, time.Minute}, n.remove)
		w.nothing(true)
	}}
}

// persist repeats f until it succeeds.
func (w *world) persist(what string, q queue, f func() error) {
	pause := q.first
	for range 200 {
		if f() == nil {
			w.note("---- %s", what)
			return
		}
		w.sleep(pause)
		pause = min(2*pause, q.longest)
	}
	w.fail("it does not come to this: %s", what)
}

// call is one with retries.
func (n *nomad) call(f func(ctx context.Context) error) error {
	pause := 100 * time.Millisecond
	for try := 1; ; try++ {
		ctx, cancel := timeout(2 * time.Minute)
		err := f(ctx)
		late := ctx.Err() != nil
		cancel()
		code := status.Code(err)
		if err == nil || try == 3 || code != codes.Unavailable && code != codes.ResourceExhausted && !late {
			return err
		}
		n.w.sleep(pause)
		pause *= 2
	}
}

func (n *nomad) create() error {
	return n.call(func(ctx context.Context) error {
		resp, err := n.control.CreateVolume(ctx, createRequest("nomad"))
		if err == nil {
			n.id, n.context = resp.GetVolume().GetVolumeId(), resp.GetVolume().GetVolumeContext()
		}
		return err
	})
}

func (n *nomad) remove() error {
	return n.call(func(ctx context.Context) error {
		return done(n.control.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: n.id, Secrets: secrets()}))
	})
}

func (n *nomad) list() error {
	return n.call(func(ctx context.Context) error { return done(n.control.ListVolumes(ctx, &csi.ListVolumesRequest{})) })
}

// place tries one allocation, and takes it back if it does not get its volume.
func (n *nomad) place(alloc string) bool {
	err := n.call(func(ctx context.Context) error {
		resp, err := n.control.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
			VolumeId: n.id, NodeId: thisNode, VolumeCapability: mountCapability(), VolumeContext: n.context, Secrets: secrets(),
		})
		n.attach = resp.GetPublishContext()
		return err
	})
	if err == nil {
		err = n.mount(alloc)
	}
	if err == nil {
		return true
	}
	n.w.note("---- %s fails", alloc)
	n.release(alloc)
	return false
}

func (n *nomad) staging() string { return filepath.Join(n.w.dir, "staging", "nomad", "rw-file-system") }
func (n *nomad) target(alloc string) string {
	return filepath.Join(n.w.dir, "per-alloc", alloc, "nomad", "rw-file-system")
}

// targets are the allocations of which there is something on disk.
func (n *nomad) targets() (allocs []string) {
	entries, err := os.ReadDir(filepath.Join(n.w.dir, "per-alloc"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		allocs = append(allocs, e.Name())
	}
	return allocs
}

func (n *nomad) mount(alloc string) error {
	for _, dir := range []string{n.staging(), n.target(alloc)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if !n.w.mountedAt(n.staging()) {
		err := n.call(func(ctx context.Context) error {
			return done(n.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
				VolumeId: n.id, StagingTargetPath: n.staging(), VolumeCapability: mountCapability(),
				PublishContext: n.attach, VolumeContext: n.context, Secrets: secrets(),
			}))
		})
		if err != nil {
			return err
		}
	}
	if n.w.mountedAt(n.target(alloc)) {
		return nil
	}
	return n.call(func(ctx context.Context) error {
		return done(n.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: n.id, StagingTargetPath: n.staging(), TargetPath: n.target(alloc), VolumeCapability: mountCapability(),
			PublishContext: n.attach, VolumeContext: n.context, Secrets: secrets(),
		}))
	})
}

func (w *world) mountedAt(path string) bool {
	for _, m := range w.m.kernel.Mounts() {
		if m.Point == path {
			return true
		}
	}
	return false
}

// release takes an allocation off; the last one unstages and detaches, too.
func (n *nomad) release(alloc string) {
	n.w.persist(alloc+" is unpublished", queue{time.Second, time.Minute}, func() error { return n.unpublish(alloc) })
	if len(n.targets()) > 0 {
		return
	}
	n.w.persist("unstaged", queue{time.Second, time.Minute}, func() error {
		return found(n.call(func(ctx context.Context) error {
			return done(n.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: n.id, StagingTargetPath: n.staging()}))
		}))
	})
	n.w.persist("detached", queue{time.Second, 5 * time.Minute}, func() error {
		return found(n.call(func(ctx context.Context) error {
			return done(n.control.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: n.id, NodeId: thisNode, Secrets: secrets()}))
		}))
	})
}

// found takes NOT_FOUND for OK.
func found(err error) error {
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

func (n *nomad) unpublish(alloc string) error {
	path := n.target(alloc)
	err := found(n.call(func(ctx context.Context) error {
		return done(n.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: n.id, TargetPath: path}))
	}))
	if n.w.mountedAt(path) {
		return errors.Join(err, fmt.Errorf("remove %s: device or resource busy", path))
	}
	if gone := os.Remove(path); gone != nil && !os.IsNotExist(gone) {
		return errors.Join(err, gone)
	}
	if err != nil {
		n.w.note("---- %s could be removed, so that it counts as unpublished: %v", path, status.Code(err))
	}
	return os.RemoveAll(filepath.Join(n.w.dir, "per-alloc", alloc))
}
