package mutants

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// atOnce makes calls at the same time and notes their outcomes, sorted. A call
// that the CO may repeat is repeated.
func (s *Script) atOnce(label string, calls ...func(context.Context) (string, error)) {
	out := make([]string, len(calls))
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
			defer cancel()
			for {
				text, err := call(ctx)
				out[i] = fmt.Sprint(status.Code(err), " ", text)
				if err == nil || !given(err) || ctx.Err() != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	slices.Sort(out)
	s.line(label, strings.Join(out, ", "))
}

// once is a call that is not repeated.
func once(call func(context.Context) (string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		text, err := call(ctx)
		if given(err) && err != nil {
			err = status.Error(codes.Unknown, "not at once")
		}
		return text, err
	}
}

func atOnceSection(s *Script) {
	c := s.controller()
	create := func(name string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			r, err := c.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: name, VolumeCapabilities: capabilities(mountCapability())})
			return r.GetVolume().GetVolumeId(), err
		}
	}
	s.atOnce("create one name", create("a"), create("a"), create("a"))
	s.atOnce("create two names", once(create("two")), once(create("three")), once(create("four")))
	s.atOnce("create many names", create("b"), create("c"), create("d"), create("e"), create("f"), create("g"), create("h"))
	begun := time.Now()
	_, err := c.CreateVolume(s.ctx, &csi.CreateVolumeRequest{Name: "alone", VolumeCapabilities: capabilities(mountCapability())})
	s.note("alone", nil, err)
	s.line("alone", fmt.Sprint("took long: ", time.Since(begun) > time.Second))
	p := s.placed("p", mountCapability(), nil, 64<<20)
	cut := func(name string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			r, err := c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: p.id})
			return r.GetSnapshot().GetSnapshotId(), err
		}
	}
	s.atOnce("cut one name", cut("s"), cut("s"))
	grow := func(bytes int64) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			_, err := c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: p.id, CapacityRange: size(bytes, 0)})
			return "grown", err
		}
	}
	s.atOnce("grow twice", grow(128<<20), grow(256<<20))
	each(s, "grown", c.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: p.id})
	s.atOnce("grow and cut", grow(512<<20), cut("s2"))
	s.atOnceGroups(p)
	s.atOnceNode(p)
	s.atOnceDeletes(create)
}

func (s *Script) atOnceGroups(p place) {
	group := func(ctx context.Context) (string, error) {
		r, err := s.group().CreateVolumeGroupSnapshot(ctx, &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{p.id}})
		return r.GetGroupSnapshot().GetGroupSnapshotId(), err
	}
	s.atOnce("cut one group", group, group)
	snap, err := s.controller().CreateSnapshot(s.ctx, &csi.CreateSnapshotRequest{Name: "once", SourceVolumeId: p.id})
	s.note("snapshot", nil, err)
	remove := func(ctx context.Context) (string, error) {
		_, err := s.controller().DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: snap.GetSnapshot().GetSnapshotId()})
		return "", err
	}
	s.atOnce("delete one snapshot", remove, remove)
}

func (s *Script) atOnceNode(p place) {
	attach := func(ctx context.Context) (string, error) {
		_, err := s.controller().ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{VolumeId: p.id, NodeId: nodeID, VolumeCapability: p.capability})
		return "", err
	}
	s.atOnce("attach", attach, attach)
	s.stage(p)
	s.mounts()
	time.Sleep(6 * window)
	s.mounts()
	publish := func(ctx context.Context) (string, error) {
		_, err := s.node().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: p.id, StagingTargetPath: s.path("staging", p), TargetPath: s.path("target", p), VolumeCapability: p.capability,
		})
		return "", err
	}
	s.note("directory", nil, os.MkdirAll(filepath.Dir(s.path("target", p)), 0o750))
	s.atOnce("publish", publish, publish)
	s.unpublish(p, s.path("target", p))
	s.unstage(p)
}

func (s *Script) atOnceDeletes(create func(string) func(context.Context) (string, error)) {
	id, err := create("deleted")(s.ctx)
	s.note("create", nil, err)
	remove := func(ctx context.Context) (string, error) {
		_, err := s.controller().DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
		return "", err
	}
	look := &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: capabilities(mountCapability())}
	each(s, "created", s.controller().ValidateVolumeCapabilities, look)
	s.atOnce("delete", remove, remove)
	each(s, "deleted", s.controller().ValidateVolumeCapabilities, look)
}

// givenUpSection cancels creates, lets them run out of time, and tries again.
func givenUpSection(s *Script) {
	c := s.controller()
	create := func(ctx context.Context, name string) (string, error) {
		r, err := c.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: name, VolumeCapabilities: capabilities(mountCapability())})
		return r.GetVolume().GetVolumeId(), err
	}
	short, cancel := context.WithTimeout(s.ctx, window)
	_, err := create(short, "late")
	cancel()
	if err != nil && status.Code(err) != codes.DeadlineExceeded {
		s.note("late", nil, err)
	}
	time.Sleep(window / 3) // the driver hears of it too
	id := s.retry("late", create)
	short, cancel = context.WithCancel(s.ctx)
	time.AfterFunc(window, cancel)
	_, _ = create(short, "cancelled") // whatever it answers nobody hears
	id2 := s.retry("cancelled", create)
	time.Sleep(8 * window)
	for _, id := range []string{id, id2} {
		each(s, "is there", c.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: capabilities(mountCapability())})
	}
	each(s, "list", c.ListVolumes, &csi.ListVolumesRequest{})
}

func (s *Script) retry(name string, create func(context.Context, string) (string, error)) string {
	for range 20 {
		id, err := create(s.ctx, name)
		if err == nil || !given(err) {
			s.note(name, nil, err)
			return id
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.line(name, "never")
	return ""
}
