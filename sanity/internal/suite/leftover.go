package suite

import (
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/sanity/internal/check"
)

// leftoverChecks: what fails, with a code that is final, leaves nothing.
func leftoverChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	return []Check{
		{ID: "H-01/CreateVolume/leaves-nothing", Title: "CreateVolume that is refused has made nothing, and its name is free", Clauses: "CV-23 CV-12 CV-15 CV-18 GEN-05", Needs: cv, Run: refusedCreates},
		{ID: "H-01/NodePublishVolume/leaves-nothing", Title: "NodePublishVolume has failed, and NodeUnpublishVolume leaves no target", Clauses: "NB-04 NB-03 NP-05", Needs: node + " host", Run: failedPublish},
	}
}

// refusedCreate is a request that no driver can take.
type refusedCreate struct {
	clause, how, needs string
	change             func(*T, *csi.CreateVolumeRequest)
}

func refusedCreatesOf() []refusedCreate {
	return []refusedCreate{
		{"CV-23", "from a snapshot that is not there", "CREATE_DELETE_SNAPSHOT", func(_ *T, r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromSnapshot(noSnapshot) }},
		{"CV-23", "from a volume that is not there", "CLONE_VOLUME", func(_ *T, r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromVolume(noVolume) }},
		{"CV-18", "with mutable parameters that nobody knows", "MODIFY_VOLUME", func(_ *T, r *csi.CreateVolumeRequest) {
			r.MutableParameters = map[string]string{"csikit-no-such-key": "1"}
		}},
		{"CV-15", "with an access mode that no spec has", "", func(t *T, r *csi.CreateVolumeRequest) { r.VolumeCapabilities = append(r.VolumeCapabilities, t.Cap(99)) }},
		{"CV-12", "of required_bytes above limit_bytes", "", func(_ *T, r *csi.CreateVolumeRequest) { r.CapacityRange = capRange(2<<30, 1<<30) }},
	}
}

func refusedCreates(t *T) {
	t.Mode()
	for _, bad := range refusedCreatesOf() {
		if bad.needs != "" && !t.Has(bad.needs) {
			continue
		}
		before := volumeIDs(t)
		req := t.CreateRequest()
		bad.change(t, req)
		_, err := t.Try(req)
		if err == nil || codeOf(err) == codes.Aborted || codeOf(err) == codes.Unavailable || codeOf(err) == codes.DeadlineExceeded {
			continue // another check's
		}
		bad.free(t, req.GetName(), before, err)
	}
}

// free says when the name is taken: by a volume that a list has had already, or one
// that another volume is in the way of. Whatever is made here is taken back.
func (bad *refusedCreate) free(t *T, name string, before map[string]*csi.ListVolumesResponse_Entry, refused error) {
	listed := volumeIDs(t)
	req := t.CreateRequest()
	req.Name = name
	req.CapacityRange = capRange(2*t.Config().Size, 0)
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	id := resp.GetVolume().GetVolumeId()
	_, old := before[id]
	if _, now := listed[id]; codeOf(err) != codes.AlreadyExists && (err != nil || !now || old) {
		return
	}
	t.Failf(bad.clause+" GEN-05", "CreateVolume %s: %s; and there is a volume of that name then", bad.how, check.Describe(refused))
	req.CapacityRange = capRange(t.Config().Size, 0)
	_, _ = t.Try(req) // so that it is known, and deleted
}

// failedPublish: a CO that does not know what became of a publish unpublishes. That
// nothing was mounted is no reason to leave the target.
func failedPublish(t *T) {
	v := t.NewVolume()
	v.Attach()
	v.Stage()
	for _, bad := range []func(*csi.NodePublishVolumeRequest){
		func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = t.Cap(99) },
		func(r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability = t.Cap(v.Cap.GetAccessMode().GetMode())
			if m := r.GetVolumeCapability().GetMount(); m != nil {
				m.MountFlags = []string{"csikit-no-such-option"}
			} else {
				r.StagingTargetPath = ""
			}
		},
	} {
		req := v.PublishRequest()
		bad(req)
		_, err := t.Try(req)
		check.OK[*csi.NodeUnpublishVolumeResponse](t, "NB-03", v.UnpublishRequest(req.GetTargetPath()))
		if _, is := os.Lstat(req.GetTargetPath()); is == nil {
			t.Failf("NB-04", "NodePublishVolume: %s; and after NodeUnpublishVolume, OK, the target is there", check.Describe(err))
		}
	}
	v.FromNode()
}
