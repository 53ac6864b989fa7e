package mutants

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/mounter/mnt"
)

// clientSection is what kubelet and the sidecars do beside a volume's plain life.
func clientSection(s *Script) {
	c, n := s.controller(), s.node()
	p := s.placed("a", mountCapability(), nil, 64<<20)
	stage := func(c *csi.VolumeCapability, context map[string]string) *csi.NodeStageVolumeRequest {
		return &csi.NodeStageVolumeRequest{VolumeId: p.id, StagingTargetPath: s.path("staging", p), VolumeCapability: c, VolumeContext: context}
	}
	staging, target := s.path("staging", p), s.path("target", p)+"/mount"
	s.besides(staging, target)
	other := mountCapability()
	other.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	each(s, "stage", n.NodeStageVolume, stage(mountCapability(), nil))
	s.unstage(p)
	each(s, "stage", n.NodeStageVolume, stage(other, p.context))
	s.unstage(p)
	s.stage(p)
	s.publish(p, target, false)
	s.write(target+"/file", "data")
	each(s, "new token", n.NodePublishVolume, &csi.NodePublishVolumeRequest{
		VolumeId: p.id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: p.capability,
		VolumeContext: map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": "{}"},
	})
	s.mounts()
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: p.id})
	s.read(target + "/file")
	s.counted(p, target)
	s.unstage(p)
	s.besidesStay(staging, target)
	each(s, "unpublish", n.NodeUnpublishVolume, &csi.NodeUnpublishVolumeRequest{VolumeId: p.id, TargetPath: s.dir + "/co/gone/mount"})
	s.inline()
	q := s.volume("b", mountCapability())
	cut := &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: q}
	each(s, "snapshot", c.CreateSnapshot, cut)
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: q})
	each(s, "snapshot again", c.CreateSnapshot, cut)
}

// besides has a CO's files beside paths, besidesStay looks for them, and takes them
// away.
func (s *Script) besides(paths ...string) {
	for _, path := range paths {
		if err := os.MkdirAll(path, 0o750); err != nil {
			s.line("beside", err.Error())
		}
		s.write(filepath.Dir(path)+"/vol_data.json", "{}")
	}
}

func (s *Script) besidesStay(paths ...string) {
	for _, path := range paths {
		s.line("beside "+path, fmt.Sprint("is there: ", os.Remove(filepath.Dir(path)+"/vol_data.json") == nil))
	}
}

// counted unpublishes a volume while somebody asks for its statistics.
func (s *Script) counted(p place, target string) {
	var wg sync.WaitGroup
	began, once := make(chan struct{}), sync.Once{}
	for range 2 {
		wg.Go(func() {
			for range 50 {
				_, err := s.node().NodeGetVolumeStats(s.ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: p.id, VolumePath: target})
				once.Do(func() { close(began) })
				if err != nil {
					return
				}
			}
		})
	}
	<-began
	s.unpublish(p, target)
	wg.Wait()
	s.unpublish(p, target)
}

// inline has two volumes of pods' own.
func (s *Script) inline() {
	n := s.node()
	var undo []*csi.NodeUnpublishVolumeRequest
	for _, c := range []string{"a", "b"} {
		id, target := "csi-"+strings.Repeat(c, 64), filepath.Join(s.dir, "co", "inline-"+c, "mount")
		if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
			s.line("inline", err.Error())
		}
		each(s, "inline", n.NodePublishVolume, &csi.NodePublishVolumeRequest{
			VolumeId: id, TargetPath: target, VolumeCapability: mountCapability(), VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true"},
		})
		s.read(target + "/file")
		s.write(target+"/file", c)
		undo = append(undo, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
	}
	each(s, "inline undone", n.NodeUnpublishVolume, undo...)
}

// diskClientSection is the same of what has devices.
func diskClientSection(s *Script) {
	n := s.node()
	c := mountCapability()
	c.GetMount().FsType = "xfs"
	p := s.placed("a", c, nil, 320<<20)
	staging, target := s.path("staging", p), s.path("target", p)
	s.stage(p)
	full := &csi.NodeExpandVolumeRequest{VolumeId: p.id, VolumePath: target, StagingTargetPath: staging, VolumeCapability: c}
	noStaging := &csi.NodeExpandVolumeRequest{VolumeId: p.id, VolumePath: target, VolumeCapability: c}
	noCapability := &csi.NodeExpandVolumeRequest{VolumeId: p.id, VolumePath: target, StagingTargetPath: staging}
	atStaging := &csi.NodeExpandVolumeRequest{VolumeId: p.id, VolumePath: staging, StagingTargetPath: staging, VolumeCapability: c}
	each(s, "grow staged", n.NodeExpandVolume, atStaging)
	s.publish(p, target, false)
	each(s, "grow", n.NodeExpandVolume, full, noStaging, noCapability)
	s.raw()
	s.note("stop", nil, s.stop())
	s.unmounted(target, staging)
	if err := s.start(); err != nil {
		s.line("start", "failed")
		return
	}
	each(s, "info", s.identity().GetPluginInfo, &csi.GetPluginInfoRequest{})
	s.publish(p, target, false) // before anything is staged: it fails, unless nobody looks
	s.unpublish(p, target)
	s.unstage(p)
	s.mounts()
}

// raw is a volume without a file system.
func (s *Script) raw() {
	n := s.node()
	p := s.placed("raw", blockCapability(), nil, 32<<20)
	s.used(p, func(target string) {
		own := filepath.Join(s.dir, "co", "own")
		err := os.WriteFile(own, nil, 0o600)
		if err == nil {
			err = mnt.Bind(target, own, mnt.BindOptions{})
		}
		s.note("bind", nil, err)
		_, err = n.NodeGetVolumeStats(s.ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: p.id, VolumePath: own})
		s.note("stats", nil, err)
		_, err = mnt.Unmount(own)
		s.note("unbind", nil, err)
		s.note("remove", nil, os.Remove(own))
		s.expand(p, 48<<20)
		_, err = n.NodeExpandVolume(s.ctx, &csi.NodeExpandVolumeRequest{VolumeId: p.id, VolumePath: target, StagingTargetPath: s.path("staging", p), CapacityRange: size(48<<20, 0), VolumeCapability: p.capability})
		s.note("grow raw", nil, err)
		f, err := os.Open(target)
		if err != nil {
			s.line("open", "failed")
			return
		}
		defer f.Close() //nolint:errcheck // it was only read
		end, err := f.Seek(0, io.SeekEnd)
		s.line("size", fmt.Sprint(end, err == nil))
	})
}

// unmounted takes away what is mounted at paths, as a reboot does.
func (s *Script) unmounted(paths ...string) {
	list, err := mnt.List()
	s.note("mounts", nil, err)
	for _, m := range slices.Backward(list) {
		if slices.Contains(paths, m.Point) {
			_, err := mnt.Unmount(m.Point)
			s.note("unmount", nil, err)
		}
	}
}
