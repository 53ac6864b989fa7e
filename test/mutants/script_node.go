package mutants

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/mounter/mnt"
)

// place is a volume on the node.
type place struct {
	id         string
	capability *csi.VolumeCapability
	context    map[string]string
}

// placed makes a volume and attaches it.
func (s *Script) placed(name string, capability *csi.VolumeCapability, source *csi.VolumeContentSource, bytes int64) place {
	resp, err := s.controller().CreateVolume(s.ctx, &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: capabilities(capability), VolumeContentSource: source, CapacityRange: size(bytes, 0),
	})
	s.note("create "+name, resp, err)
	p := place{resp.GetVolume().GetVolumeId(), capability, resp.GetVolume().GetVolumeContext()}
	_, err = s.controller().ControllerPublishVolume(s.ctx, &csi.ControllerPublishVolumeRequest{VolumeId: p.id, NodeId: nodeID, VolumeCapability: capability})
	s.note("attach "+name, nil, err)
	return p
}

func (s *Script) path(kind string, p place) string {
	return filepath.Join(s.dir, "co", kind, fmt.Sprintf("%.40x", p.id))
}

func (s *Script) stage(p place) {
	path := s.path("staging", p)
	err := os.MkdirAll(path, 0o750)
	seen := watchArgs(s.ctx)
	if err == nil {
		_, err = s.node().NodeStageVolume(s.ctx, &csi.NodeStageVolumeRequest{
			VolumeId: p.id, StagingTargetPath: path, VolumeCapability: p.capability, VolumeContext: p.context, Secrets: secretsForTest(),
		})
	}
	s.note("stage", nil, err)
	s.line("arguments", fmt.Sprint("with a secret: ", seen()))
	files, _ := filepath.Glob(filepath.Dir(path) + "/*") // the pattern is good
	s.line("beside", fmt.Sprint(len(files)))
}

// watchArgs looks at the arguments of all programs until seen is called.
func watchArgs(ctx context.Context) (seen func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan bool, 1)
	go func() {
		hit := false
		for ctx.Err() == nil && !hit {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
			for _, f := range files {
				b, err := os.ReadFile(f)
				hit = hit || err == nil && strings.Contains(string(b), canary)
			}
			after(ctx, window)
		}
		found <- hit
	}()
	return func() bool { cancel(); return <-found }
}

func (s *Script) publish(p place, target string, readonly bool) {
	err := os.MkdirAll(filepath.Dir(target), 0o750)
	if err == nil {
		context := map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": `{"aud":"` + canary + `"}`}
		maps.Copy(context, p.context)
		_, err = s.node().NodePublishVolume(s.ctx, &csi.NodePublishVolumeRequest{
			VolumeId: p.id, StagingTargetPath: s.path("staging", p), TargetPath: target, VolumeCapability: p.capability,
			VolumeContext: context, Readonly: readonly, Secrets: secretsForTest(),
		})
	}
	s.note("publish", nil, err)
}

func (s *Script) unpublish(p place, target string) {
	_, err := s.node().NodeUnpublishVolume(s.ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: p.id, TargetPath: target})
	s.note("unpublish", nil, err)
	_, err = os.Lstat(target)
	s.line("target", fmt.Sprint("is gone: ", os.IsNotExist(err)))
}

func (s *Script) unstage(p place) {
	_, err := s.node().NodeUnstageVolume(s.ctx, &csi.NodeUnstageVolumeRequest{VolumeId: p.id, StagingTargetPath: s.path("staging", p)})
	s.note("unstage", nil, err)
}

// mounts notes what is mounted for the CO.
func (s *Script) mounts() {
	list, err := mnt.List()
	if err != nil {
		s.line("mounts", err.Error())
	}
	for _, m := range list {
		if strings.HasPrefix(m.Point, s.dir+"/co/") {
			text := fmt.Sprint(m.FSType, " read-only ", m.ReadOnly())
			for _, o := range []string{"noexec", "nodiratime"} {
				text += fmt.Sprint(" ", o, " ", strings.Contains(fmt.Sprintf("%+v", m), o))
			}
			if s.base == Mem {
				text = fmt.Sprint("read-only ", m.ReadOnly())
			}
			s.line("mount "+m.Point, text)
		}
	}
}

// write and read are what a user does.
func (s *Script) write(file, text string) {
	err := os.WriteFile(file, []byte(text), 0o600)
	s.line("write", fmt.Sprint("worked: ", err == nil))
}

func (s *Script) read(file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		s.line("read", "nothing")
		return
	}
	s.line("read", fmt.Sprintf("%.80q", b))
}

func nodeSection(s *Script) {
	p, q := s.placed("a", mountCapability(), nil, 64<<20), s.placed("b", mountCapability(), nil, 64<<20)
	s.stage(p)
	s.stage(p)
	s.stage(q)
	target, second := s.path("target", p)+"/mount", s.path("target", p)+"/second"
	s.publish(p, target, false)
	s.write(target+"/file", "data of a")
	s.publish(p, target, false)
	s.mounts()
	s.publish(p, target, true)
	s.publish(p, second, true)
	s.write(second+"/other", "none")
	s.publish(q, s.path("target", q), false)
	s.write(s.path("target", q)+"/file", "data of b")
	s.read(target + "/file")
	s.mounts()
	s.asked(p, target)
	s.line("children", s.children())
	s.unpublish(p, second)
	s.unpublish(p, target)
	s.unpublish(p, target)
	s.unpublish(q, s.path("target", q))
	s.unstage(p)
	s.unstage(p)
	s.unstage(q)
	s.mounts()
	s.read(s.d.rig.volumeDir(p.id) + "/file")
	s.secondModes()
}

// asked is what a CO asks of a volume that it uses.
func (s *Script) asked(p place, target string) {
	n := s.node()
	long := filepath.Join(s.dir, "co", strings.Repeat("long/", 30), "staging")
	block, other := blockCapability(), mountCapability()
	other.GetMount().MountFlags = []string{"nodiratime"}
	none := place{"v-none", p.capability, nil}
	stage := func(id, path string, c *csi.VolumeCapability) *csi.NodeStageVolumeRequest {
		return &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: path, VolumeCapability: c}
	}
	err := os.MkdirAll(long, 0o750)
	s.note("directory", nil, err)
	each(s, "stage", n.NodeStageVolume, stage("v-none", s.path("staging", none), p.capability), stage(p.id, s.path("staging", p), other),
		stage(p.id, s.dir+"/co/b", block), stage(p.id, long, p.capability))
	each(s, "unstage", n.NodeUnstageVolume, &csi.NodeUnstageVolumeRequest{VolumeId: p.id, StagingTargetPath: long})
	publish := func(id, staging, path string, c *csi.VolumeCapability) *csi.NodePublishVolumeRequest {
		return &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: staging, TargetPath: path, VolumeCapability: c}
	}
	staging := s.path("staging", p)
	each(s, "publish", n.NodePublishVolume, publish("v-none", staging, s.dir+"/co/x", p.capability), publish(p.id, "", s.dir+"/co/y", p.capability),
		publish(p.id, staging, target, other), publish(p.id, staging, target, block), publish(p.id, staging, s.dir+"/co/z", block), publish(p.id, staging, target, p.capability),
		publish(p.id, staging, long+"/target", p.capability))
	each(s, "unpublish", n.NodeUnpublishVolume, &csi.NodeUnpublishVolumeRequest{VolumeId: p.id, TargetPath: long + "/target"})
	for _, path := range []string{"x", "y", "z"} {
		_, err := os.Lstat(s.dir + "/co/" + path)
		s.line("target", fmt.Sprint("is gone: ", err != nil))
	}
	stats := func(id, path string) *csi.NodeGetVolumeStatsRequest {
		return &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: path}
	}
	each(s, "stats", n.NodeGetVolumeStats, stats(p.id, target), stats(p.id, staging), stats("v-none", target), stats(p.id, s.dir+"/none"))
	each(s, "health", n.NodeGetVolumeHealth, &csi.NodeGetVolumeHealthRequest{VolumeId: p.id}, &csi.NodeGetVolumeHealthRequest{VolumeId: "v-none"})
	each(s, "in use", s.controller().DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: p.id})
}

// leakSection looks at what this process uses, and is alone in it.
func leakSection(s *Script) {
	p := s.placed("a", mountCapability(), nil, 64<<20)
	s.stage(p)
	target := s.path("target", p)
	s.publish(p, target, false)
	fds, threads, heap := usage()
	for range 4 {
		s.publish(p, target, false)
	}
	fds2, threads2, heap2 := usage()
	s.line("more", fmt.Sprint("files ", fds2 > fds+25, ", threads ", threads2 > threads+25, ", memory ", heap2 > heap+40<<20))
	s.unpublish(p, target)
	s.unstage(p)
}

// secondModes publishes at two targets what may be.
func (s *Script) secondModes() {
	c := mountCapability()
	c.AccessMode.Mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	p := s.placed("many", c, nil, 64<<20)
	s.stage(p)
	s.publish(p, s.path("target", p)+"/1", false)
	s.publish(p, s.path("target", p)+"/2", false)
	s.mounts()
	s.unpublish(p, s.path("target", p)+"/1")
	s.mounts()
	s.unpublish(p, s.path("target", p)+"/2")
	s.unstage(p)
	s.mounts()
}

// usage is what this process uses: open files, threads, memory.
func usage() (fds, threads int, heap uint64) {
	files, _ := os.ReadDir("/proc/self/fd")   // 0 elsewhere
	tasks, _ := os.ReadDir("/proc/self/task") // 0 elsewhere
	var m runtime.MemStats
	debug.FreeOSMemory()
	runtime.ReadMemStats(&m)
	return len(files), len(tasks), m.HeapAlloc
}

// children are what the driver has started and not ended.
func (s *Script) children() string {
	s.d.rig.kept.mu.Lock()
	defer s.d.rig.kept.mu.Unlock()
	return fmt.Sprint(len(s.d.rig.kept.list) > 0)
}

// host notes what is to be seen beside the answers.
func (s *Script) host() {
	log := s.log.String()
	s.line("log", fmt.Sprint("has a secret: ", strings.Contains(log, canary) || strings.Contains(log, "Q0FOQVJZ"), ", tells of flags: ", strings.Contains(log, "flags=")))
	files, err := os.ReadDir(s.dir)
	if err != nil {
		s.line("files", err.Error())
	}
	for _, f := range files {
		s.line("file", f.Name())
	}
	walk := func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			s.line("left", path)
		}
		return nil //nolint:nilerr // it went away
	}
	if list, err := mnt.List(); err == nil {
		for _, m := range list {
			if strings.HasPrefix(m.Point, s.dir+"/co/") {
				return // the mounts were noted, and what is in them is not of this
			}
		}
	}
	_ = filepath.WalkDir(filepath.Join(s.dir, "co"), walk) // walk has no error
}

// given tells whether a code is one that lets the CO go on.
func given(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.Aborted, codes.Unavailable:
		return true
	}
	return false
}
