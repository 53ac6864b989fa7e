package csidriver

import (
	"fmt"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// TestModeMatrix asks every RPC that takes a capability for every mode and access
// type, of drivers that have some of them.
func TestModeMatrix(t *testing.T) {
	for name, traits := range map[string]func(*backends.Traits){
		"all":        func(t *backends.Traits) { t.Modes = allModes() },
		"writer":     func(t *backends.Traits) { t.Modes = []backends.AccessMode{backends.SingleNodeWriter} },
		"successors": func(t *backends.Traits) { t.Modes = []backends.AccessMode{backends.SingleNodeSingleWriter} },
		"shares": func(t *backends.Traits) {
			t.Modes, t.Block = []backends.AccessMode{backends.MultiNodeMultiWriter}, false
		},
		"only devices": func(t *backends.Traits) { t.Filesystem, t.FSTypes = false, nil },
	} {
		t.Run(name, func(t *testing.T) {
			var a *attachments
			r := startRig(t, func(s *setup) {
				withAttacher(&a)(s)
				traits(&s.cfg.Traits)
			})
			for mode := range csi.VolumeCapability_AccessMode_Mode_name {
				if mode == 0 {
					continue
				}
				for _, block := range []bool{false, true} {
					c := capMode(csi.VolumeCapability_AccessMode_Mode(mode))
					if block {
						c.AccessType = blockCap().GetAccessType()
					}
					askForMode(t, r, c)
				}
			}
		})
	}
}

func allModes() (all []backends.AccessMode) {
	for m := backends.SingleNodeWriter; m <= backends.MultiNodeMultiWriter; m++ {
		all = append(all, m)
	}
	return all
}

// askForMode asks all RPCs for one capability.
func askForMode(t *testing.T, r *rig, c *csi.VolumeCapability) {
	t.Helper()
	ctx, traits := t.Context(), &r.driver.cfg.Traits
	mode := pbconv.Mode(c.GetAccessMode().GetMode())
	have := slices.Contains(traits.Modes, mode) ||
		mode == backends.SingleNodeWriter && slices.Contains(traits.Modes, backends.SingleNodeSingleWriter)
	have = have && (c.GetBlock() != nil && traits.Block || c.GetMount() != nil && traits.Filesystem)
	code := func(refused codes.Code) codes.Code {
		if have {
			return codes.OK
		}
		return refused
	}
	name := fmt.Sprint(mode, c.GetBlock() != nil)
	create := createReq(name)
	create.VolumeCapabilities = []*csi.VolumeCapability{c}
	_, err := r.CreateVolume(ctx, create)
	wantCode(t, err, code(codes.InvalidArgument))
	id := memoryID(name)
	if !have { // a volume all the same: the capability is what is asked about
		r.backend.mu.Lock()
		r.backend.volumes[id] = &backends.Volume{ID: id, Capacity: gi}
		r.backend.mu.Unlock()
	}
	said, err := r.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{c}})
	wantCode(t, err, codes.OK)
	if (said.GetConfirmed() != nil) != have || (said.GetMessage() == "") != have {
		t.Errorf("%s: validated %v", name, said)
	}
	free, err := r.GetCapacity(ctx, &csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{c}})
	wantCode(t, err, codes.OK)
	if (free.GetAvailableCapacity() > 0) != have {
		t.Errorf("%s: capacity %v", name, free)
	}
	attach := attachReq(id, "n1")
	attach.VolumeCapability = c
	_, err = r.ControllerPublishVolume(ctx, attach)
	wantCode(t, err, code(codes.InvalidArgument))
	attach.NodeId = "n2" // a second node
	_, err = r.ControllerPublishVolume(ctx, attach)
	if have && !mode.MultiNode() {
		wantCode(t, err, codes.FailedPrecondition, "node n1")
	} else {
		wantCode(t, err, code(codes.InvalidArgument))
	}
	stage, publish := stageReq(id, "/s/"+name), publishReq(id, "/s/"+name, "/t/"+name)
	stage.VolumeCapability, publish.VolumeCapability = c, c
	_, err = r.NodeStageVolume(ctx, stage)
	wantCode(t, err, code(codes.FailedPrecondition))
	_, err = r.NodePublishVolume(ctx, publish)
	wantCode(t, err, code(codes.FailedPrecondition))
}

// TestSplitProcesses: a controller process whose node half is not connected, and
// node processes whose controller half is not, answer for the driver as a whole:
// Identity alike, and the RPCs of their own side.
func TestSplitProcesses(t *testing.T) {
	process := func(serve Services, node string) *rig {
		var a *attachments
		return startRig(t, func(s *setup) {
			withAttacher(&a)(s)
			d := &podDisks{disks: &disks{memory: s.backend}}
			s.cfg.Node = d
			s.cfg.Traits.Lifecycle |= backends.Ephemeral
			s.cfg.Traits.MountGroup = true
			s.cfg.Serve, s.opts.NodeID = serve, node
			if serve == ServeNode {
				a.failure = backends.ErrUnavailable // its side of the storage is not here
			}
		})
	}
	ctx := t.Context()
	control, n1, n2 := process(ServeController, ""), process(ServeNode, "n1"), process(ServeNode, "n2")
	info, err := control.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	wantCode(t, err, codes.OK)
	caps, err := control.GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
	wantCode(t, err, codes.OK)
	nodeCaps, err := n1.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	wantCode(t, err, codes.OK)
	for _, n := range []*rig{n1, n2} {
		got, err := n.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
		wantCode(t, err, codes.OK)
		gotCaps, err := n.GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
		wantCode(t, err, codes.OK)
		gotNode, err := n.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
		wantCode(t, err, codes.OK)
		if !proto.Equal(got, info) || !proto.Equal(gotCaps, caps) || !proto.Equal(gotNode, nodeCaps) {
			t.Errorf("%v %v %v, elsewhere %v %v %v", got, gotCaps, gotNode, info, caps, nodeCaps)
		}
		_, err = n.ControllerPublishVolume(ctx, attachReq("v", "n1"))
		wantCode(t, err, codes.Unimplemented)
	}
	if info.GetManifest()[manifestPrefix+"attachRequired"] != "true" || info.GetManifest()[manifestPrefix+"volumeLifecycleModes"] != "Persistent,Ephemeral" {
		t.Errorf("manifest %v", info.GetManifest())
	}
	_, err = control.NodePublishVolume(ctx, podReq("csi-1", "/t", "t"))
	wantCode(t, err, codes.Unimplemented)

	// One volume through both: attached for a node, and published there.
	id := makeVolume(t, control, "v")
	node, err := n2.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	wantCode(t, err, codes.OK)
	attached, err := control.ControllerPublishVolume(ctx, attachReq(id, node.GetNodeId()))
	wantCode(t, err, codes.OK)
	stage := stageReq(id, "/s")
	stage.PublishContext = attached.GetPublishContext()
	_, err = n2.NodeStageVolume(ctx, stage)
	wantCode(t, err, codes.OK)
	_, err = control.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.OK) // only the backend can know, and this one does not
}

// TestNoAlphaModes: the modes of the spec's alpha are neither advertised nor
// taken; a volume of a successor mode is one of SINGLE_NODE_WRITER.
func TestNoAlphaModes(t *testing.T) {
	for _, modes := range [][]backends.AccessMode{{backends.SingleNodeMultiWriter}, allModes()} {
		given := slices.Clone(modes)
		r := startRig(t, func(s *setup) { s.opts.NoAlpha, s.cfg.Traits.Modes = true, given })
		ctx := t.Context()
		_, err := r.CreateVolume(ctx, createReq("v"))
		wantCode(t, err, codes.OK)
		for _, m := range []csi.VolumeCapability_AccessMode_Mode{csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER} {
			req := createReq("w")
			req.VolumeCapabilities = []*csi.VolumeCapability{capMode(m)}
			_, err := r.CreateVolume(ctx, req)
			wantCode(t, err, codes.InvalidArgument, "access mode")
		}
		caps, err := r.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
		wantCode(t, err, codes.OK)
		for _, c := range caps.GetCapabilities() {
			if c.GetRpc().GetType() == csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER {
				t.Error("SINGLE_NODE_MULTI_WRITER is advertised")
			}
		}
		if !slices.Equal(given, modes) {
			t.Error("the author's own list was changed")
		}
	}
}

// TestNoAlphaRPCs: health is neither advertised nor served.
func TestNoAlphaRPCs(t *testing.T) {
	var i *ill
	r := startRig(t, func(s *setup) { withHealth(&i)(s); s.opts.NoAlpha = true })
	ctx := t.Context()
	_, err := r.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{VolumeId: "v"})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: "v"})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.NodeGetStorageHealth(ctx, &csi.NodeGetStorageHealthRequest{})
	wantCode(t, err, codes.Unimplemented)
	for _, c := range r.driver.features.controllerCapabilities() {
		if s := c.String(); s == "" || c.GetRpc().GetType() >= csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH {
			t.Errorf("%s is advertised", s)
		}
	}
	for _, c := range r.driver.features.nodeCapabilities() {
		if c.GetRpc().GetType() >= csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH {
			t.Errorf("%v is advertised", c)
		}
	}
}
