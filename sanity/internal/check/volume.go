package check

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Mode is an access mode.
type Mode = csi.VolumeCapability_AccessMode_Mode

// usualModes are tried in this order where any will do.
var usualModes = []Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
}

// Cap is a capability of the run's access type.
func (t *T) Cap(mode Mode) *csi.VolumeCapability { return Capability(mode, t.cfg.Block) }

// Capability is one of an access type.
func Capability(mode Mode, block bool) *csi.VolumeCapability {
	c := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
	if block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}
	return c
}

// Mode is one that the driver takes.
func (t *T) Mode() Mode {
	if m := t.run.mode.Load(); m != 0 {
		return Mode(m)
	}
	for _, m := range usualModes {
		req := t.CreateRequest()
		req.VolumeCapabilities = []*csi.VolumeCapability{t.Cap(m)}
		_, err := t.Try(req)
		if status.Code(err) == codes.InvalidArgument {
			continue
		}
		if err == nil {
			t.run.mode.Store(int32(m))
		}
		return m
	}
	return usualModes[0]
}

// CreateRequest is a proper one, for a new volume.
func (t *T) CreateRequest() *csi.CreateVolumeRequest {
	mode := Mode(t.run.mode.Load())
	if mode == 0 {
		mode = usualModes[0]
	}
	return &csi.CreateVolumeRequest{
		Name:               t.UniqueName(),
		CapacityRange:      &csi.CapacityRange{RequiredBytes: t.cfg.Size},
		VolumeCapabilities: []*csi.VolumeCapability{t.Cap(mode)},
		Parameters:         t.cfg.Parameters,
		Secrets:            t.cfg.Secrets,
	}
}

// Volume is one that a check works with.
type Volume struct {
	*csi.Volume
	T       *T
	Request *csi.CreateVolumeRequest
	Cap     *csi.VolumeCapability
	Publish map[string]string // publish_context
	Staging string
	targets int
}

// NewVolume makes a volume; each of change may change the request.
func (t *T) NewVolume(change ...func(*csi.CreateVolumeRequest)) *Volume {
	t.Mode()
	req := t.CreateRequest()
	for _, f := range change {
		f(req)
	}
	resp := Setup[*csi.CreateVolumeResponse](t, "CV-01", req)
	if resp.GetVolume().GetVolumeId() == "" {
		t.Fatalf("CV-39", "CreateVolume: the answer has no volume_id")
	}
	return &Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
}

// StagingDir is how the names of staging paths begin.
const StagingDir = "staging"

// NodeID is this node's, as the driver calls it.
func (t *T) NodeID() string { return t.Node.GetNodeId() }

// AttachRequest is that of ControllerPublishVolume.
func (v *Volume) AttachRequest() *csi.ControllerPublishVolumeRequest {
	return &csi.ControllerPublishVolumeRequest{
		VolumeId: v.VolumeId, NodeId: v.T.NodeID(), VolumeCapability: v.Cap, Secrets: v.T.cfg.Secrets, VolumeContext: v.VolumeContext,
	}
}

// Attach publishes the volume to the node, if the driver does such a thing.
func (v *Volume) Attach() {
	if v.T.Has("PUBLISH_UNPUBLISH_VOLUME") {
		v.Publish = Setup[*csi.ControllerPublishVolumeResponse](v.T, "CP-01", v.AttachRequest()).GetPublishContext()
	}
}

// Detach is its opposite.
func (v *Volume) Detach() {
	if v.T.Has("PUBLISH_UNPUBLISH_VOLUME") {
		Setup[*csi.ControllerUnpublishVolumeResponse](v.T, "CU-01",
			&csi.ControllerUnpublishVolumeRequest{VolumeId: v.VolumeId, NodeId: v.T.NodeID(), Secrets: v.T.cfg.Secrets})
	}
}

// StageRequest is that of NodeStageVolume; the directory is there.
func (v *Volume) StageRequest() *csi.NodeStageVolumeRequest {
	if v.Staging == "" {
		v.Staging = v.T.MakeDir(StagingDir)
	}
	return &csi.NodeStageVolumeRequest{
		VolumeId: v.VolumeId, PublishContext: v.Publish, StagingTargetPath: v.Staging, VolumeCapability: v.Cap,
		Secrets: v.T.cfg.Secrets, VolumeContext: v.VolumeContext,
	}
}

// MakeDir makes a new directory in the check's.
func (t *T) MakeDir(name string) string {
	dir := filepath.Join(t.Dir(), name)
	for i := 2; ; i++ {
		err := os.Mkdir(dir, 0o750)
		if err == nil {
			return dir
		}
		if !errors.Is(err, fs.ErrExist) {
			t.NotRun("%v", err)
		}
		dir = filepath.Join(t.Dir(), name+strconv.Itoa(i))
	}
}

// Stage stages the volume, if the driver does such a thing.
func (v *Volume) Stage() {
	if v.T.Has("node:STAGE_UNSTAGE_VOLUME") {
		Setup[*csi.NodeStageVolumeResponse](v.T, "NS-01", v.StageRequest())
	}
}

// Unstage is its opposite.
func (v *Volume) Unstage() {
	if v.T.Has("node:STAGE_UNSTAGE_VOLUME") {
		Setup[*csi.NodeUnstageVolumeResponse](v.T, "NU-01", v.UnstageRequest())
	}
}

// UnstageRequest is that of NodeUnstageVolume.
func (v *Volume) UnstageRequest() *csi.NodeUnstageVolumeRequest {
	return &csi.NodeUnstageVolumeRequest{VolumeId: v.VolumeId, StagingTargetPath: v.Staging}
}

// PublishRequest is that of NodePublishVolume at a new target, whose parent is
// there.
func (v *Volume) PublishRequest() *csi.NodePublishVolumeRequest {
	v.targets++
	req := &csi.NodePublishVolumeRequest{
		VolumeId: v.VolumeId, PublishContext: v.Publish, VolumeCapability: v.Cap,
		TargetPath: filepath.Join(v.T.MakeDir("pod"), "mount"), Secrets: v.T.cfg.Secrets, VolumeContext: v.VolumeContext,
	}
	if v.T.Has("node:STAGE_UNSTAGE_VOLUME") {
		req.StagingTargetPath = v.Staging
	}
	return req
}

// PublishAt publishes the volume at a new target, and says where.
func (v *Volume) PublishAt(change ...func(*csi.NodePublishVolumeRequest)) (target string) {
	req := v.PublishRequest()
	for _, f := range change {
		f(req)
	}
	Setup[*csi.NodePublishVolumeResponse](v.T, "NP-07", req)
	return req.GetTargetPath()
}

// Unpublish is its opposite.
func (v *Volume) Unpublish(target string) {
	Setup[*csi.NodeUnpublishVolumeResponse](v.T, "NB-01", v.UnpublishRequest(target))
}

// UnpublishRequest is that of NodeUnpublishVolume.
func (v *Volume) UnpublishRequest(target string) *csi.NodeUnpublishVolumeRequest {
	return &csi.NodeUnpublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: target}
}

// ToNode brings the volume so far that it can be published.
func (v *Volume) ToNode() *Volume {
	v.Attach()
	v.Stage()
	return v
}

// FromNode is its opposite.
func (v *Volume) FromNode() {
	v.Unstage()
	v.Detach()
}

// Delete deletes the volume.
func (v *Volume) Delete() {
	Setup[*csi.DeleteVolumeResponse](v.T, "DV-01", v.DeleteRequest())
}

// DeleteRequest is that of DeleteVolume.
func (v *Volume) DeleteRequest() *csi.DeleteVolumeRequest {
	return &csi.DeleteVolumeRequest{VolumeId: v.VolumeId, Secrets: v.T.cfg.Secrets}
}

// SnapshotRequest is a proper one, for a new snapshot of a volume.
func (t *T) SnapshotRequest(volume string) *csi.CreateSnapshotRequest {
	return &csi.CreateSnapshotRequest{SourceVolumeId: volume, Name: t.UniqueName(), Secrets: t.cfg.Secrets, Parameters: t.cfg.SnapshotParameters}
}

// NewSnapshot makes a snapshot of the volume.
func (v *Volume) NewSnapshot() *csi.Snapshot {
	s := Setup[*csi.CreateSnapshotResponse](v.T, "CS-01", v.T.SnapshotRequest(v.VolumeId)).GetSnapshot()
	if s.GetSnapshotId() == "" {
		v.T.Fatalf("CS-13", "CreateSnapshot: the answer has no snapshot_id")
	}
	return s
}
