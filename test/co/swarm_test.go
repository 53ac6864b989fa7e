package co

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
)

// swarm is moby/swarmkit v2.1.2-88-g3e72cb64d: its manager and one agent.
//
//   - The manager has 15 s for all that it does with a volume in one go
//     (manager/csi/manager.go CSIRPCTimeout), and does it again after every code, with
//     pauses of 100 ms to 10 min (volumequeue/queue.go). There are no final codes.
//     What is to be deleted before it is made is made first (handleVolume).
//   - The agent has 15 s for stage and publish together, and begins with the stage each
//     time (agent/csi/volumes.go csiCallTimeout, publishVolume). It makes no directory.
//   - What was staged by this run of the agent is never unstaged: NodeUnstageVolume
//     returns at once while its map has the volume, and nothing takes it out
//     (agent/csi/plugin/plugin.go NodeUnstageVolume). So detach and delete come while the
//     volume is staged, and only a reboot, or an agent that was restarted before it
//     was told to remove, ends that. After a reboot the record of the stage is left: it
//     may be the only memory of what an unstage needs.
type swarm struct {
	w       *world
	control *clients
	node    *clients
	id      string
	context map[string]string
	attach  map[string]string
	staged  bool // volumeMap
}

var swarmQueue = queue{100 * time.Millisecond, 10 * time.Minute}

func swarmStory() *scenario {
	places := append(controllerPlaces(), nodePlaces()...)
	places = slices.DeleteFunc(places, func(p place) bool { return p.method == "ListVolumes" })
	return &scenario{name: "swarm", places: places, tell: func(w *world) {
		s := &swarm{w: w, control: w.client("swarm", csidriver.ServeController), node: w.client("swarm", csidriver.ServeNode)}
		for turn := range 2 {
			w.persist("created", swarmQueue, s.within(s.create))
			w.persist("attached", swarmQueue, s.within(s.publish))
			w.persist("mounted", swarmQueue, s.within(s.mount))
			w.sleep(time.Minute)
			if turn == 0 {
				s.staged = false // the agent is restarted
			}
			w.persist("unmounted", swarmQueue, s.within(s.unmount))
			w.persist("detached", swarmQueue, s.within(s.unpublish))
			if s.staged {
				s.stuck()
			}
			w.persist("deleted", swarmQueue, s.within(s.remove))
			w.nothing(turn == 0)
		}
	}}
}

func (s *swarm) within(f func(ctx context.Context) error) func() error {
	return func() error {
		ctx, cancel := timeout(15 * time.Second)
		defer cancel()
		return f(ctx)
	}
}

// stuck: what is staged is not deleted, until the node reboots.
func (s *swarm) stuck() {
	for range 5 {
		if err := s.within(s.remove)(); err == nil || status.Code(err) == codes.NotFound {
			s.w.fail("a volume that is staged was deleted: %v", err)
			return
		}
		s.w.sleep(time.Minute)
	}
	if _, err := s.w.eye.Volume(context.Background(), backends.VolumeRequest{ID: s.id}); err != nil {
		s.w.fail("a volume that is staged is not as it was: %v", err)
	}
	s.w.reboot()
	s.staged = false
}

func (s *swarm) create(ctx context.Context) error {
	resp, err := s.control.CreateVolume(ctx, createRequest("swarm"))
	if err == nil {
		s.id, s.context = resp.GetVolume().GetVolumeId(), resp.GetVolume().GetVolumeContext()
	}
	return err
}

func (s *swarm) publish(ctx context.Context) error {
	resp, err := s.control.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: s.id, NodeId: thisNode, VolumeCapability: mountCapability(), VolumeContext: s.context, Secrets: secrets(),
	})
	s.attach = resp.GetPublishContext()
	return err
}

func (s *swarm) staging() string { return filepath.Join(s.w.dir, "data", "staged", s.id) }
func (s *swarm) target() string  { return filepath.Join(s.w.dir, "data", "published", s.id) }

func (s *swarm) mount(ctx context.Context) error {
	_, err := s.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: s.id, StagingTargetPath: s.staging(), VolumeCapability: mountCapability(),
		PublishContext: s.attach, VolumeContext: s.context, Secrets: secrets(),
	})
	if err != nil {
		return err
	}
	s.staged = true
	return done(s.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: s.id, StagingTargetPath: s.staging(), TargetPath: s.target(), VolumeCapability: mountCapability(),
		PublishContext: s.attach, VolumeContext: s.context, Secrets: secrets(),
	}))
}

func (s *swarm) unmount(ctx context.Context) error {
	_, err := s.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: s.id, TargetPath: s.target()})
	if err != nil || s.staged {
		return err
	}
	return done(s.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: s.id, StagingTargetPath: s.staging()}))
}

func (s *swarm) unpublish(ctx context.Context) error {
	return done(s.control.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: s.id, NodeId: thisNode, Secrets: secrets()}))
}

func (s *swarm) remove(ctx context.Context) error {
	return done(s.control.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: s.id, Secrets: secrets()}))
}

// reboot ends the node with all that is mounted on it, and starts it again.
func (w *world) reboot() {
	for {
		w.mu.Lock()
		p, busy := w.procs[csidriver.ServeNode], w.restarts[csidriver.ServeNode]
		w.mu.Unlock()
		if !busy {
			w.restart(p, true)
			w.note("        the node reboots")
			w.m.kernel.Reboot()
			w.m.store.Reboot(thisNode)
			break
		}
		w.sleep(time.Second)
	}
	for busy := true; busy; {
		w.sleep(time.Second)
		w.mu.Lock()
		busy = w.restarts[csidriver.ServeNode]
		w.mu.Unlock()
	}
}
