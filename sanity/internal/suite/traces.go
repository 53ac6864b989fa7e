package suite

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity/internal/check"
)

// useWith takes a volume through its life with secrets. Failures are other checks'.
func useWith(t *T, secrets map[string]string) {
	req := t.CreateRequest()
	req.Secrets = secrets
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		return
	}
	v := &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
	if !t.HasNode {
		return
	}
	if t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		a := v.AttachRequest()
		a.Secrets = secrets
		if r, err := check.Try[*csi.ControllerPublishVolumeResponse](t, a); err == nil {
			v.Publish = r.GetPublishContext()
		}
	}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		s := v.StageRequest()
		s.Secrets = secrets
		_, _ = t.Try(s) // as above
	}
	p := v.PublishRequest()
	p.Secrets = secrets
	_, _ = t.Try(p) // as above
}

func environment(t *T) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(t.Config().PID) + "/environ")
	if err != nil {
		t.NotRun("%v", err)
	}
	for v := range strings.SplitSeq(string(b), "\x00") {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "CSI_") && name != "CSI_ENDPOINT" {
			t.Warnf("PR-11", "the driver is given %s: the prefix CSI_ is the spec's (if it is the driver's variable)", name)
		}
	}
}

// traces are where the kernel still knows a volume: mounts, loop devices, mappings.
func traces(id string) []string {
	var found []string
	if mounts, err := mnt.List(); err == nil {
		for _, m := range mounts {
			if strings.Contains(m.Point+" "+m.Source+" "+m.Root, id) {
				found = append(found, "the mount of "+m.Source+" at "+m.Point)
			}
		}
	}
	for _, glob := range []string{"/sys/block/loop*/loop/backing_file", "/sys/block/dm-*/dm/name"} {
		files, _ := filepath.Glob(glob) // the pattern is good
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), id) {
				found = append(found, strings.Split(f, "/")[3]+", of "+strings.TrimSpace(string(b)))
			}
		}
	}
	return found
}

func devices(t *T) {
	v := t.NewVolume()
	if len(v.VolumeId) < 6 {
		t.NotRun("the id %q is too short to be looked for", v.VolumeId)
	}
	made := traces(v.VolumeId) // storage that is on this machine may have a device for each volume
	v.ToNode()
	v.Unpublish(v.PublishAt())
	v.FromNode()
	var left []string
	for range 40 {
		if left = slices.DeleteFunc(traces(v.VolumeId), func(s string) bool { return slices.Contains(made, s) }); len(left) == 0 {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Failf("NU-02 NB-02", "the volume is unpublished and unstaged, and there is %s", strings.Join(left, "; "))
}

func twoIdentities(t *T) {
	if t.Config().Controller == t.Config().Node {
		t.NotApplicable("there is one endpoint")
	}
	for _, req := range []proto.Message{&csi.GetPluginInfoRequest{}, &csi.GetPluginCapabilitiesRequest{}, &csi.ProbeRequest{}} {
		a, err1 := t.Send(t.Context(), req)
		b, err2 := t.SendToNode(t.Context(), req)
		if err1 != nil || err2 != nil {
			t.Failf("GEN-01", "%s: at the controller's endpoint %s, at the node's %s; want OK", check.Name(req), check.Describe(err1), check.Describe(err2))
			continue
		}
		if sorted(a) != sorted(b) {
			t.Failf("ID-06", "%s: the controller's endpoint says %s, the node's %s", check.Name(req), t.Text(a), t.Text(b))
		}
	}
}

func otherSide(t *T) {
	if t.Config().Controller == t.Config().Node {
		t.NotApplicable("there is one endpoint")
	}
	for _, m := range check.Methods() {
		service := m.Parent().Name()
		if m.IsStreamingServer() || service != "Controller" && service != "Node" {
			continue
		}
		req := filled(m.Input())
		var err error
		if service == "Controller" {
			_, err = t.SendToNode(t.Context(), req)
		} else {
			_, err = t.SendToController(t.Context(), req)
		}
		if codeOf(err) != codes.Unimplemented {
			t.Failf("GEN-03 PR-15", "%s at the other side's endpoint: got %s, want UNIMPLEMENTED", m.Name(), check.Describe(err))
		}
	}
}
