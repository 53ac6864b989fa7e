package csidriver

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// capabilitiesOf lists all that a configuration advertises.
func capabilitiesOf(t *testing.T, cfg Config, o *Options) (plugin, controller, node []string) {
	t.Helper()
	d, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range d.features.plugin() {
		if s := c.GetService(); s != nil {
			plugin = append(plugin, s.GetType().String())
		} else {
			plugin = append(plugin, c.GetVolumeExpansion().GetType().String())
		}
	}
	for _, c := range d.features.controllerCapabilities() {
		controller = append(controller, c.GetRpc().GetType().String())
	}
	for _, c := range d.features.nodeCapabilities() {
		node = append(node, c.GetRpc().GetType().String())
	}
	return plugin, controller, node
}

func TestCapabilitiesFollowMethods(t *testing.T) {
	devices := func(c *Config) {
		c.Traits.Devices, c.Traits.Block, c.Traits.FSTypes = true, true, []string{"ext4"}
	}
	for name, tc := range map[string]struct {
		change                   func(*Config, *featured)
		plugin, controller, node string
	}{
		"nothing": {
			func(*Config, *featured) {},
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"no node": {
			func(c *Config, _ *featured) { c.Node = nil },
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"no controller": {
			func(c *Config, _ *featured) { c.Controller = nil },
			"", "CREATE_DELETE_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"lists, capacity": {
			func(_ *Config, f *featured) {
				f.controller.VolumeLister, f.controller.CapacityReporter = newMemory(), newMemory()
			},
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME LIST_VOLUMES GET_CAPACITY GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"expands a share": {
			func(_ *Config, f *featured) { f.controller.Expander = newMemory() },
			"CONTROLLER_SERVICE ONLINE", "CREATE_DELETE_VOLUME EXPAND_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"expands a device": {
			func(c *Config, f *featured) { devices(c); f.controller.Expander = newMemory() },
			"CONTROLLER_SERVICE ONLINE", "CREATE_DELETE_VOLUME EXPAND_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS EXPAND_VOLUME GET_VOLUME_HEALTH",
		},
		"expands offline": {
			func(c *Config, f *featured) {
				devices(c)
				c.Traits.OfflineExpand, f.controller.Expander = true, newMemory()
			},
			"CONTROLLER_SERVICE OFFLINE", "CREATE_DELETE_VOLUME EXPAND_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS EXPAND_VOLUME GET_VOLUME_HEALTH",
		},
		"expands on the node": {
			func(c *Config, f *featured) { devices(c); f.node.NodeExpander = anything{} },
			"CONTROLLER_SERVICE ONLINE", "CREATE_DELETE_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS EXPAND_VOLUME GET_VOLUME_HEALTH",
		},
		"devices that do not grow": {
			func(c *Config, _ *featured) { devices(c) },
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"topology": {
			func(c *Config, f *featured) {
				c.Traits.TopologyKeys, f.node.TopologyReporter = []string{"a.b/zone"}, newMemory()
			},
			"CONTROLLER_SERVICE VOLUME_ACCESSIBILITY_CONSTRAINTS", "CREATE_DELETE_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"snapshots, clones, modify": {
			func(_ *Config, f *featured) {
				d := newData(nil)
				f.controller.Snapshotter, f.controller.SnapshotLister, f.controller.Cloner, f.controller.Modifier = d, d, d, d
			},
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT LIST_SNAPSHOTS CLONE_VOLUME GET_VOLUME MODIFY_VOLUME GET_SNAPSHOT",
			"STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"groups, changed blocks, places of snapshots": {
			func(c *Config, f *featured) {
				d := newData(nil)
				f.controller.Snapshotter, f.controller.GroupSnapshotter, f.controller.ChangedBlockTracker = d, d, d
				c.Traits.TopologyKeys, f.node.TopologyReporter, c.Traits.SnapshotTopology = []string{"a.b/zone"}, newMemory(), true
			},
			"CONTROLLER_SERVICE VOLUME_ACCESSIBILITY_CONSTRAINTS GROUP_CONTROLLER_SERVICE SNAPSHOT_METADATA_SERVICE SNAPSHOT_ACCESSIBILITY_CONSTRAINTS",
			"CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT GET_VOLUME GET_SNAPSHOT", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"attaches": {
			func(c *Config, f *featured) {
				c.Traits.AttachReadOnly, f.controller.Attacher = true, anything{}
				f.controller.VolumeLister, f.controller.PublishedNodesLister = newMemory(), anything{}
			},
			"CONTROLLER_SERVICE",
			"CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME PUBLISH_READONLY LIST_VOLUMES LIST_VOLUMES_PUBLISHED_NODES GET_VOLUME",
			"STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"health": {
			func(_ *Config, f *featured) {
				f.controller.HealthChecker, f.controller.HealthLister = anything{}, anything{}
				f.node.NodeHealthChecker, f.node.StorageHealthChecker = anything{}, anything{}
			},
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME GET_VOLUME GET_VOLUME_HEALTH LIST_VOLUME_HEALTH",
			"STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH GET_STORAGE_HEALTH",
		},
		"mount group": {
			func(c *Config, _ *featured) { c.Traits.MountGroup = true },
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME GET_VOLUME", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS VOLUME_MOUNT_GROUP GET_VOLUME_HEALTH",
		},
		"ephemeral only": {
			func(c *Config, f *featured) {
				c.Controller, c.Traits.Lifecycle, f.node.EphemeralProvisioner = nil, backends.Ephemeral, anything{}
			},
			"", "CREATE_DELETE_VOLUME GET_VOLUME", "GET_VOLUME_STATS GET_VOLUME_HEALTH",
		},
		"single writers": {
			func(c *Config, _ *featured) {
				c.Traits.Modes = []backends.AccessMode{backends.SingleNodeSingleWriter}
			},
			"CONTROLLER_SERVICE", "CREATE_DELETE_VOLUME GET_VOLUME SINGLE_NODE_MULTI_WRITER", "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS GET_VOLUME_HEALTH SINGLE_NODE_MULTI_WRITER",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, f := plainConfig(), new(featured)
			cfg.Controller, cfg.Node = f, f
			tc.change(&cfg, f)
			plugin, controller, node := capabilitiesOf(t, cfg, quietOptions())
			for _, x := range []struct {
				what, want string
				got        []string
			}{{"plugin", tc.plugin, plugin}, {"controller", tc.controller, controller}, {"node", tc.node, node}} {
				if got := strings.Join(x.got, " "); got != x.want {
					t.Errorf("%s: %q, want %q", x.what, got, x.want)
				}
			}
		})
	}
}

func TestNoAlpha(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) { s.opts.NoAlpha = true }), t.Context()
	caps, err := r.ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	wantCode(t, err, codes.OK)
	for _, c := range caps.GetCapabilities() {
		switch c.GetRpc().GetType() {
		case csi.ControllerServiceCapability_RPC_GET_VOLUME, csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER:
			t.Errorf("%v is advertised", c)
		}
	}
	_, err = r.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.Unimplemented)
	free, err := r.GetCapacity(ctx, &csi.GetCapacityRequest{})
	wantCode(t, err, codes.OK)
	if free.GetMinimumVolumeSize() != nil {
		t.Errorf("capacity %v has an alpha field", free)
	}
}

// TestTwoProcesses: Identity is the same whatever a process serves, and the
// other half's RPCs are UNIMPLEMENTED.
func TestTwoProcesses(t *testing.T) {
	only := func(s Services) *rig { return startRig(t, func(x *setup) { x.cfg.Serve = s }) }
	both, controller, node := only(0), only(ServeController), only(ServeNode)
	ctx := t.Context()
	var infos, caps []proto.Message
	for _, r := range []*rig{both, controller, node} {
		info, err := r.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
		wantCode(t, err, codes.OK)
		list, err := r.GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
		wantCode(t, err, codes.OK)
		infos, caps = append(infos, info), append(caps, list)
	}
	for i := range infos {
		if !proto.Equal(infos[0], infos[i]) || !proto.Equal(caps[0], caps[i]) {
			t.Errorf("process %d: %v %v, process 0: %v %v", i, infos[i], caps[i], infos[0], caps[0])
		}
	}
	_, err := controller.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	wantCode(t, err, codes.Unimplemented)
	_, err = node.CreateVolume(ctx, createReq("x"))
	wantCode(t, err, codes.Unimplemented)
	_, err = node.ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	wantCode(t, err, codes.Unimplemented)
}

// TestGate: an RPC whose capability is not there is UNIMPLEMENTED before anything
// is looked at, and what is advertised is served.
func TestGate(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) {
		s.backend.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) {
			c.Expander, c.VolumeLister, c.CapacityReporter = nil, nil, nil
		}
	}), t.Context()
	_, err := r.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: -1})
	wantCode(t, err, codes.Unimplemented, "ListVolumes")
	_, err = r.GetCapacity(ctx, &csi.GetCapacityRequest{})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{})
	wantCode(t, err, codes.Unimplemented)
	_, err = r.NodeGetStorageHealth(ctx, &csi.NodeGetStorageHealthRequest{})
	wantCode(t, err, codes.Unimplemented)
}

func TestServedMethodsExist(t *testing.T) {
	all := csiMethods()
	f := newFeatures(&Config{Controller: newData(newMemory()), Node: newMemory(), Traits: memoryTraits()}, new(Options))
	served := f.served(ServeController | ServeNode)
	for m := range served {
		if !all[m] {
			t.Errorf("%s is no RPC of CSI", m)
		}
	}
	if len(served) != 3+8+8+5+5+2 {
		t.Errorf("%d RPCs are served", len(served))
	}
	for m := range early {
		if !served[m] || changes(m) {
			t.Errorf("%s answers early", m)
		}
	}
}

func TestManifest(t *testing.T) {
	cfg := plainConfig()
	cfg.Traits.Kubernetes = backends.Kubernetes{PodInfo: true, TokenAudiences: []string{"a", "b"}}
	m := manifest(&cfg.Traits, false)
	for field, want := range map[string]string{
		"podInfoOnMount": "true", "attachRequired": "false", "fsGroupPolicy": "ReadWriteOnceWithFSType",
		"tokenRequests": "a,b", "volumeLifecycleModes": "Persistent", "requiresRepublish": "false",
	} {
		if got := m[manifestPrefix+field]; got != want {
			t.Errorf("%s = %q, want %q", field, got, want)
		}
	}
	if !slices.Contains(strings.Split(lifecycle(backends.Persistent|backends.Ephemeral), ","), "Ephemeral") {
		t.Error("no Ephemeral")
	}
	for key := range m {
		if strings.HasPrefix(key, deploymentPrefix) {
			t.Errorf("%s was not asked for", key)
		}
	}
	cfg.Traits.Kubernetes = backends.Kubernetes{NodeLocal: true, HostNetwork: true, PrivilegedController: true, HostPaths: []string{"/a", "/b"}}
	cfg.Traits.FSTypes = []string{"xfs", "ext4"}
	cfg.Traits.Lifecycle = backends.Persistent | backends.Ephemeral
	m = manifest(&cfg.Traits, false)
	if m[nodeLocalKey] != "true" || m[manifestPrefix+"podInfoOnMount"] != "true" {
		t.Errorf("ephemeral volumes are told by the pod's info alone: %v", m)
	}
	if m[deploymentPrefix+"hostNetwork"] != "true" || m[deploymentPrefix+"privilegedController"] != "true" || m[deploymentPrefix+"hostPaths"] != "/a,/b" || m[deploymentPrefix+"fsTypes"] != "xfs,ext4" {
		t.Errorf("what the deployment must have: %v", m)
	}
}
