package mutants

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// copySection writes to volumes of package mem, and looks at their copies.
func copySection(s *Script) {
	p := s.placed("a", mountCapability(), nil, 64<<20)
	s.used(p, func(target string) { s.write(target+"/file", "first") })
	s.used(p, func(target string) { s.read(target + "/file") })
	snap, err := s.controller().CreateSnapshot(s.ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: p.id})
	s.note("snapshot", nil, err)
	clone := s.placed("b", mountCapability(), fromVolume(p.id), 64<<20)
	s.used(p, func(target string) { s.write(target+"/file", "second, and longer") })
	restored := s.placed("c", mountCapability(), fromSnapshot(snap.GetSnapshot().GetSnapshotId()), 64<<20)
	s.used(restored, func(target string) { s.read(target + "/file") })
	s.used(clone, func(target string) { s.read(target + "/file") })
	_, err = s.controller().ControllerExpandVolume(s.ctx, &csi.ControllerExpandVolumeRequest{VolumeId: p.id, CapacityRange: size(128<<20, 0)})
	s.note("expand", nil, err)
	s.used(p, func(target string) { s.read(target + "/file") })
	s.detachAndDelete(p)
	s.used(clone, func(target string) { s.read(target + "/file") })
	again := s.placed("a", mountCapability(), nil, 64<<20)
	s.used(again, func(target string) { s.read(target + "/file") })
}

func (s *Script) detachAndDelete(p place) {
	_, err := s.controller().ControllerUnpublishVolume(s.ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: p.id, NodeId: nodeID})
	s.note("detach", nil, err)
	_, err = s.controller().DeleteVolume(s.ctx, &csi.DeleteVolumeRequest{VolumeId: p.id})
	s.note("delete", nil, err)
}

// used has something done at a target.
func (s *Script) used(p place, do func(target string)) {
	target := s.path("target", p)
	s.stage(p)
	s.publish(p, target, false)
	do(target)
	s.unpublish(p, target)
	s.unstage(p)
}

// blockSection writes to raw volumes.
func blockSection(s *Script) {
	p := s.placed("a", blockCapability(), nil, 32<<20)
	pattern := bytes.Repeat([]byte("block"), 1000)
	s.used(p, func(target string) {
		info, err := os.Stat(target)
		s.line("target", fmt.Sprint("is a device: ", err == nil && info.Mode()&os.ModeDevice != 0))
		f, err := os.OpenFile(target, os.O_RDWR, 0)
		if err != nil {
			s.line("open", "failed")
			return
		}
		defer f.Close() //nolint:errcheck // synced
		end, err := f.Seek(0, io.SeekEnd)
		s.line("size", fmt.Sprint(end, err == nil))
		for _, at := range []int64{0, 20 << 20} {
			_, err := f.WriteAt(pattern, at)
			s.line("write", fmt.Sprint(err == nil))
		}
		s.line("sync", fmt.Sprint(f.Sync() == nil))
	})
	look := func(target string) {
		for _, at := range []int64{0, 20 << 20} {
			got := make([]byte, len(pattern))
			f, err := os.Open(target)
			if err == nil {
				_, err = f.ReadAt(got, at)
				_ = f.Close() // read only
			}
			s.line("data", fmt.Sprint(err == nil && bytes.Equal(got, pattern)))
		}
	}
	clone := s.placed("b", blockCapability(), fromVolume(p.id), 32<<20)
	s.used(clone, look)
	snap, err := s.controller().CreateSnapshot(s.ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: p.id})
	s.note("snapshot", nil, err)
	s.used(s.placed("c", blockCapability(), fromSnapshot(snap.GetSnapshot().GetSnapshotId()), 48<<20), look)
	s.expand(p, 48<<20)
	s.used(p, look)
	each(s, "health", s.node().NodeGetVolumeHealth, &csi.NodeGetVolumeHealthRequest{VolumeId: "v-none"})
}

func (s *Script) expand(p place, bytes int64) {
	resp, err := s.controller().ControllerExpandVolume(s.ctx, &csi.ControllerExpandVolumeRequest{VolumeId: p.id, CapacityRange: size(bytes, 0), VolumeCapability: p.capability})
	s.note("expand", resp, err)
}

// diskSection has file systems made, kept and grown.
func diskSection(s *Script) {
	c := mountCapability()
	c.GetMount().FsType, c.GetMount().MountFlags = "ext4", []string{"noexec"}
	p := s.placed("a", c, nil, 320<<20)
	s.used(p, func(target string) {
		s.conflicts(p, target)
		s.write(target+"/file", "data")
		s.mounts()
		s.asked(p, target)
	})
	s.used(p, func(target string) { s.read(target + "/file") })
	s.expand(p, 384<<20)
	s.used(p, func(target string) { s.read(target + "/file") })
	x := mountCapability()
	x.GetMount().FsType = "xfs" // ext4 grows online only with more rights than a container has
	p = s.placed("x", x, nil, 320<<20)
	s.used(p, func(target string) {
		s.mounts()
		n := s.node()
		grow := func(id, path string, r *csi.CapacityRange) *csi.NodeExpandVolumeRequest {
			return &csi.NodeExpandVolumeRequest{VolumeId: id, VolumePath: path, CapacityRange: r}
		}
		s.expand(p, 400<<20)
		each(s, "grow", n.NodeExpandVolume, grow(p.id, target, size(400<<20, 0)), grow(p.id, target, size(400<<20, 0)), grow(p.id, target, nil),
			grow("v-none", target, nil), grow(p.id, target, size(1<<40, 0)))
		st, err := n.NodeGetVolumeStats(s.ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: p.id, VolumePath: target})
		s.note("stats", nil, err)
		for _, u := range st.GetUsage() {
			s.line("bytes", fmt.Sprint(u.GetTotal()>>24, u.GetUnit()))
		}
	})
	s.loops()
}

// conflicts asks for what is there in another way.
func (s *Script) conflicts(p place, target string) {
	each(s, "stage", s.node().NodeStageVolume, &csi.NodeStageVolumeRequest{
		VolumeId: p.id, StagingTargetPath: s.path("staging", p), VolumeCapability: blockCapability(), VolumeContext: p.context,
	})
	each(s, "publish", s.node().NodePublishVolume, &csi.NodePublishVolumeRequest{
		VolumeId: p.id, StagingTargetPath: s.path("staging", p), TargetPath: target, VolumeCapability: blockCapability(), VolumeContext: p.context,
	}, &csi.NodePublishVolumeRequest{
		VolumeId: p.id, StagingTargetPath: s.path("staging", p), TargetPath: target, VolumeCapability: p.capability, VolumeContext: p.context, Readonly: true,
	})
}

// loops are the loop devices of this driver.
func (s *Script) loops() {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		s.line("loops", err.Error())
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), s.dir+"/") {
			s.line("loop", "is left")
		}
	}
}

// restartSection ends the driver and starts it again.
func restartSection(s *Script) {
	p := s.placed("a", mountCapability(), nil, 320<<20)
	snap, err := s.controller().CreateSnapshot(s.ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: p.id})
	s.note("snapshot", nil, err)
	s.stage(p)
	target := s.path("target", p)
	s.publish(p, target, false)
	s.publish(p, target+"-2", false)
	each(s, "node", s.node().NodeGetInfo, &csi.NodeGetInfoRequest{})
	each(s, "capabilities", s.controller().ControllerGetCapabilities, &csi.ControllerGetCapabilitiesRequest{})
	s.note("stop", nil, s.stop())
	if lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.dir + "/csi.sock", Net: "unix"}); err == nil {
		lis.SetUnlinkOnClose(false)
		_ = lis.Close() // as kill -9 leaves it
	}
	if err := s.start(); err != nil {
		s.line("start", "failed")
		_ = os.Remove(s.dir + "/csi.sock") // there may be none
		s.now = Reference(s.base)
		s.note("start the reference", nil, s.start())
	}
	c := s.controller()
	each(s, "node", s.node().NodeGetInfo, &csi.NodeGetInfoRequest{})
	each(s, "capabilities", c.ControllerGetCapabilities, &csi.ControllerGetCapabilitiesRequest{})
	each(s, "list", c.ListVolumes, &csi.ListVolumesRequest{})
	each(s, "snapshots", c.ListSnapshots, &csi.ListSnapshotsRequest{SnapshotId: snap.GetSnapshot().GetSnapshotId()})
	s.placed("b", mountCapability(), nil, 320<<20)
	s.publish(p, target, false)
	s.mounts()
	s.unpublish(p, target)
	s.unpublish(p, target+"-2")
	s.unstage(p)
	s.mounts()
}

// Tidy takes away what a mutant has left in a directory: mounts, loop devices, files.
func Tidy(dir string) error {
	for range 10 {
		list, err := mnt.List()
		if err != nil {
			return err
		}
		left := false
		for _, m := range slices.Backward(list) {
			if strings.HasPrefix(m.Point, dir+"/") {
				left = true
				_, _ = mnt.Detach(m.Point) // the next round sees it
			}
		}
		if !left {
			break
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for len(testenv.DetachLoops(dir)) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	return os.RemoveAll(dir)
}
