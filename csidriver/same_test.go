package csidriver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestSameRequest changes each field of each request: a difference counts exactly
// when the field is no secret.
func TestSameRequest(t *testing.T) {
	for _, m := range fullRequests() {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			other := proto.Clone(m)
			if !sameAsked(asked{message: m}, asked{message: other}) {
				t.Fatalf("%T differs from its copy", m)
			}
			other.ProtoReflect().Clear(fd)
			if same := sameAsked(asked{message: m}, asked{message: other}); same != csiSecret(fd) {
				t.Errorf("%s missing: same is %v", fd.FullName(), same)
			}
		}
	}
}

func TestSameRequestInside(t *testing.T) {
	request := func(change func(*csi.NodePublishVolumeRequest)) asked {
		r := publishReq("v", "/s", "/t")
		r.Secrets = map[string]string{"a": "b"}
		r.VolumeContext = map[string]string{"a": "b", "csi.storage.k8s.io/serviceAccount.tokens": "old"}
		r.VolumeCapability.GetMount().MountFlags = []string{"a", "b"}
		change(r)
		return asked{message: r}
	}
	base := request(func(*csi.NodePublishVolumeRequest) {})
	for name, tc := range map[string]struct {
		change func(*csi.NodePublishVolumeRequest)
		same   bool
	}{
		"new secrets": {func(r *csi.NodePublishVolumeRequest) { r.Secrets = map[string]string{"c": "d"} }, true},
		"new tokens": {func(r *csi.NodePublishVolumeRequest) {
			r.VolumeContext["csi.storage.k8s.io/serviceAccount.tokens"] = "new"
		}, true},
		"no tokens": {func(r *csi.NodePublishVolumeRequest) {
			delete(r.VolumeContext, "csi.storage.k8s.io/serviceAccount.tokens")
		}, true},
		"other value":    {func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["a"] = "c" }, false},
		"one key more":   {func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["c"] = "" }, false},
		"one key less":   {func(r *csi.NodePublishVolumeRequest) { delete(r.VolumeContext, "a") }, false},
		"order of flags": {func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().MountFlags = []string{"b", "a"} }, false},
		"one flag less":  {func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().MountFlags = []string{"a"} }, false},
		"another mode":   {func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.AccessMode.Mode = 3 }, false},
		"block":          {func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = blockCap() }, false},
		"read-only":      {func(r *csi.NodePublishVolumeRequest) { r.Readonly = true }, false},
		"an unknown field": {func(r *csi.NodePublishVolumeRequest) {
			r.ProtoReflect().SetUnknown(protoreflect.RawFields{0xf8, 0x07, 0x01})
		}, false},
	} {
		if got := sameAsked(base, request(tc.change)); got != tc.same {
			t.Errorf("%s: same is %v", name, got)
		}
	}
	if sameAsked(base, asked{message: stageReq("v", "/s")}) || sameAsked(base, 5) {
		t.Error("different types are the same")
	}
}
