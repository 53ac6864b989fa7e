package csidriver

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/backends"
)

// TestRequired sends each RPC its full request without one field that the spec
// calls REQUIRED. The list is the spec's, not that of the validator. What csikit
// lets through on purpose is not here: docs/clauses.md names it.
func TestRequired(t *testing.T) {
	c, _, _ := fuzzDriver(t, nil)
	full := make(map[string]proto.Message)
	for _, m := range fullRequests() {
		full[strings.TrimSuffix(string(m.ProtoReflect().Descriptor().Name()), "Request")] = m
	}
	for rpc, fields := range map[string]string{
		"CreateVolume":               "name volume_capabilities",
		"DeleteVolume":               "volume_id",
		"ControllerPublishVolume":    "volume_id node_id volume_capability",
		"ControllerUnpublishVolume":  "volume_id",
		"ValidateVolumeCapabilities": "volume_id volume_capabilities",
		"ControllerGetVolumeHealth":  "volume_id",
		"ControllerGetVolume":        "volume_id",
		"ControllerModifyVolume":     "volume_id",
		"ControllerExpandVolume":     "volume_id capacity_range",
		"CreateSnapshot":             "source_volume_id name",
		"DeleteSnapshot":             "snapshot_id",
		"GetSnapshot":                "snapshot_id",
		"NodeStageVolume":            "volume_id staging_target_path volume_capability",
		"NodeUnstageVolume":          "volume_id staging_target_path",
		"NodePublishVolume":          "volume_id target_path volume_capability",
		"NodeUnpublishVolume":        "volume_id target_path",
		"NodeGetVolumeStats":         "volume_id volume_path",
		"NodeGetVolumeHealth":        "volume_id",
		"NodeExpandVolume":           "volume_id volume_path",
		"CreateVolumeGroupSnapshot":  "name source_volume_ids",
		"DeleteVolumeGroupSnapshot":  "group_snapshot_id",
		"GetVolumeGroupSnapshot":     "group_snapshot_id",
		"GetMetadataAllocated":       "snapshot_id",
		"GetMetadataDelta":           "base_snapshot_id target_snapshot_id",
	} {
		t.Run(rpc, func(t *testing.T) {
			for field := range strings.FieldsSeq(fields) {
				m := proto.Clone(full[rpc])
				r := m.ProtoReflect()
				r.Clear(r.Descriptor().Fields().ByName(protoreflect.Name(field)))
				wantCode(t, c.send(t, rpc, m), codes.InvalidArgument, field+" is required")
			}
		})
	}
}

// send calls an RPC by its name.
func (c *directly) send(t *testing.T, rpc string, m proto.Message) error {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range c.methods {
		if method.name != rpc {
			continue
		}
		decoded, err := c.call(t.Context(), method, data)
		if !decoded && status.Code(err) != codes.Unimplemented {
			t.Fatalf("%s: %v", rpc, err)
		}
		return err
	}
	t.Fatalf("no RPC %s", rpc)
	return nil
}

// needs is the capability without which an RPC is not served; "": always served.
// The list is the spec's, not that of the gate.
var needs = map[string]string{
	"GetPluginInfo": "", "GetPluginCapabilities": "", "Probe": "",
	"CreateVolume": "CREATE_DELETE_VOLUME", "DeleteVolume": "CREATE_DELETE_VOLUME",
	"ControllerPublishVolume": "PUBLISH_UNPUBLISH_VOLUME", "ControllerUnpublishVolume": "PUBLISH_UNPUBLISH_VOLUME",
	"ValidateVolumeCapabilities": "", "ControllerGetCapabilities": "",
	"ListVolumes": "LIST_VOLUMES", "GetCapacity": "GET_CAPACITY", "ControllerGetVolume": "GET_VOLUME",
	"ControllerListVolumeHealth": "LIST_VOLUME_HEALTH", "ControllerGetVolumeHealth": "GET_VOLUME_HEALTH",
	"CreateSnapshot": "CREATE_DELETE_SNAPSHOT", "DeleteSnapshot": "CREATE_DELETE_SNAPSHOT",
	"ListSnapshots": "LIST_SNAPSHOTS", "GetSnapshot": "GET_SNAPSHOT",
	"ControllerExpandVolume": "EXPAND_VOLUME", "ControllerModifyVolume": "MODIFY_VOLUME",
	"GroupControllerGetCapabilities": "GROUP_CONTROLLER_SERVICE",
	"CreateVolumeGroupSnapshot":      "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
	"DeleteVolumeGroupSnapshot":      "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
	"GetVolumeGroupSnapshot":         "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
	"GetMetadataAllocated":           "SNAPSHOT_METADATA_SERVICE", "GetMetadataDelta": "SNAPSHOT_METADATA_SERVICE",
	"NodeStageVolume": "node STAGE_UNSTAGE_VOLUME", "NodeUnstageVolume": "node STAGE_UNSTAGE_VOLUME",
	"NodePublishVolume": "", "NodeUnpublishVolume": "", "NodeGetCapabilities": "", "NodeGetInfo": "",
	"NodeGetVolumeStats": "node GET_VOLUME_STATS", "NodeGetVolumeHealth": "node GET_VOLUME_HEALTH",
	"NodeGetStorageHealth": "node GET_STORAGE_HEALTH", "NodeExpandVolume": "node EXPAND_VOLUME",
}

// advertised is what the four capability RPCs answer.
func advertised(t *testing.T, d *Driver) map[string]bool {
	t.Helper()
	have, ctx := make(map[string]bool), t.Context()
	plugin, err := (&identity{Driver: d}).GetPluginCapabilities(ctx, nil)
	wantCode(t, err, codes.OK)
	for _, c := range plugin.GetCapabilities() {
		have[c.GetService().GetType().String()] = true
	}
	control := newController(d)
	controller, err := control.ControllerGetCapabilities(ctx, nil)
	wantCode(t, err, codes.OK)
	for _, c := range controller.GetCapabilities() {
		have[c.GetRpc().GetType().String()] = true
	}
	group, err := (&groupController{controller: control}).GroupControllerGetCapabilities(ctx, nil)
	wantCode(t, err, codes.OK)
	for _, c := range group.GetCapabilities() {
		have[c.GetRpc().GetType().String()] = true
	}
	node, err := newNode(d).NodeGetCapabilities(ctx, nil)
	wantCode(t, err, codes.OK)
	for _, c := range node.GetCapabilities() {
		have["node "+c.GetRpc().GetType().String()] = true
	}
	return have
}

// TestAdvertisedIsServed takes one feature after another away from a backend that
// has all: its capability goes, and exactly the RPCs that need it are
// UNIMPLEMENTED.
func TestAdvertisedIsServed(t *testing.T) {
	type (
		control = backends.ControllerFeatures
		node    = backends.NodeFeatures
	)
	for capability, without := range map[string]func(*control, *node){
		"everything":               func(*control, *node) {},
		"PUBLISH_UNPUBLISH_VOLUME": func(c *control, _ *node) { c.Attacher, c.PublishedNodesLister = nil, nil },
		"LIST_VOLUMES":             func(c *control, _ *node) { c.VolumeLister, c.PublishedNodesLister = nil, nil },
		"GET_CAPACITY":             func(c *control, _ *node) { c.CapacityReporter = nil },
		"LIST_VOLUME_HEALTH":       func(c *control, _ *node) { c.HealthLister = nil },
		"GET_VOLUME_HEALTH":        func(c *control, _ *node) { c.HealthLister, c.HealthChecker = nil, nil },
		"CREATE_DELETE_SNAPSHOT": func(c *control, _ *node) {
			c.Snapshotter, c.SnapshotLister, c.SnapshotIDer = nil, nil, nil
			c.GroupSnapshotter, c.GroupSnapshotIDer, c.ChangedBlockTracker = nil, nil, nil
		},
		"LIST_SNAPSHOTS":            func(c *control, _ *node) { c.SnapshotLister = nil },
		"EXPAND_VOLUME":             func(c *control, _ *node) { c.Expander = nil },
		"MODIFY_VOLUME":             func(c *control, _ *node) { c.Modifier = nil },
		"GROUP_CONTROLLER_SERVICE":  func(c *control, _ *node) { c.GroupSnapshotter, c.GroupSnapshotIDer = nil, nil },
		"SNAPSHOT_METADATA_SERVICE": func(c *control, _ *node) { c.ChangedBlockTracker = nil },
		"node GET_STORAGE_HEALTH":   func(_ *control, n *node) { n.StorageHealthChecker = nil },
	} {
		t.Run(capability, func(t *testing.T) {
			c, _, _ := fuzzDriver(t, func(cfg *Config, m *memory) {
				m.without = without
				cfg.Traits.AttachReadOnly = capability != "PUBLISH_UNPUBLISH_VOLUME"
				cfg.Traits.SnapshotTopology = capability != "CREATE_DELETE_SNAPSHOT"
			})
			have := advertised(t, c.driver)
			if have[capability] {
				t.Error("it is advertised")
			}
			for _, m := range c.methods {
				need, known := needs[m.name]
				want := need == "" || have[need]
				if capability == "everything" && !want {
					t.Errorf("%s is not advertised", need)
				}
				_, err := c.call(t.Context(), m, nil)
				if got := status.Code(err) != codes.Unimplemented; got != want || !known {
					t.Errorf("%s: served %v, want %v", m.name, got, want)
				}
			}
		})
	}
}

// TestTopologyForm: keys and values at their limits.
func TestTopologyForm(t *testing.T) {
	n63, n64 := strings.Repeat("n", 63), strings.Repeat("n", 64)
	for key, ok := range map[string]bool{
		"zone": true, n63: true, n64: false, "a.b/" + n63: true, "a.b/" + n64: false, n63 + "/z": true, n64 + "/z": false,
		"a.b/Z-_.9": true, "a.b/-z": false, "a.b/z-": false, "a.b/z z": false, "a.b/": false, "": false, "/z": false,
		"A.b/z": false, "-a/z": false, "a-/z": false, "a..b/z": false, "a_b/z": false, "a.b/c/z": false,
	} {
		if err := checkTopologyKey(key); (err == nil) != ok {
			t.Errorf("key %q: %v", key, err)
		}
	}
	traits := &backends.Traits{TopologyKeys: []string{"z"}}
	for value, ok := range map[string]bool{n63: true, n64: false, "a-_.B9": true, "": false, "-a": false, "a-": false, "a b": false, "ä": false} {
		if err := checkSegments(traits, backends.Segments{"z": value}); (err == nil) != ok {
			t.Errorf("value %q: %v", value, err)
		}
	}
}

type capacity backends.Capacity

func (c capacity) Capacity(context.Context, backends.CapacityRequest) (backends.Capacity, error) {
	return backends.Capacity(c), nil
}

func TestCapacityBadAnswers(t *testing.T) {
	for name, have := range map[string]capacity{"available": {Available: -1}, "maximum": {MaxVolume: -1}, "minimum": {MinVolume: -1}} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, func(s *setup) {
				s.backend.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) { c.CapacityReporter = have }
			})
			_, err := r.GetCapacity(t.Context(), &csi.GetCapacityRequest{})
			wantCode(t, err, codes.Internal, "-1")
		})
	}
}

// TestMadeTooBig: limit_bytes holds whatever the backend makes.
func TestMadeTooBig(t *testing.T) {
	r := startRig(t, func(s *setup) {
		s.backend.answer = func(v *backends.Volume) *backends.Volume { c := *v; c.Capacity = gi + 1; return &c }
	})
	q := createReq("v")
	q.CapacityRange = &csi.CapacityRange{RequiredBytes: gi, LimitBytes: gi}
	_, err := r.CreateVolume(t.Context(), q)
	wantCode(t, err, codes.Unavailable, "asked for was")
}

type snapshots []*backends.Snapshot

func (s snapshots) ListSnapshots(context.Context, backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error) {
	return s, "", nil
}

// TestSnapshotsTooMany: max_entries holds whatever the backend lists.
func TestSnapshotsTooMany(t *testing.T) {
	one := &backends.Snapshot{ID: "s", VolumeID: "v", Created: time.Unix(1, 0)}
	r, _ := startData(t, func(_ *setup, d *data) {
		d.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) { c.SnapshotLister = snapshots{one, one} }
	})
	_, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: 1})
	wantCode(t, err, codes.Internal, "a page of 2 entries")
}

// TestLongAnswers: each string that a backend gives, one byte too long.
func TestLongAnswers(t *testing.T) {
	long, now := strings.Repeat("x", 129), time.Unix(1, 0)
	fits := func(err error) bool { return err == nil }
	traits := new(backends.Traits)
	volume := func(v backends.Volume) error { return checkVolume(traits, &v) }
	snapshot := func(s backends.Snapshot) error { s.Created = now; return checkSnapshot(traits, &s) }
	group := func(id string) error {
		return checkGroup(traits, &backends.GroupSnapshot{ID: id, Created: now, Snapshots: []backends.Snapshot{{ID: "s", VolumeID: "v", Created: now}}})
	}
	for name, answer := range map[string]func(string) error{
		"volume": func(s string) error { return volume(backends.Volume{ID: s}) },
		"source snapshot": func(s string) error {
			return volume(backends.Volume{ID: "v", Source: backends.ContentSource{SnapshotID: s}})
		},
		"source volume": func(s string) error {
			return volume(backends.Volume{ID: "v", Source: backends.ContentSource{VolumeID: s}})
		},
		"snapshot":           func(s string) error { return snapshot(backends.Snapshot{ID: s, VolumeID: "v"}) },
		"volume of snapshot": func(s string) error { return snapshot(backends.Snapshot{ID: "s", VolumeID: s}) },
		"group of snapshot":  func(s string) error { return snapshot(backends.Snapshot{ID: "s", VolumeID: "v", GroupID: s}) },
		"group":              group,
		"reason":             checkReason,
		"page token":         func(s string) error { return checkPage(backends.Page{}, 0, s) },
	} {
		if !fits(answer(long[1:])) || fits(answer(long)) {
			t.Errorf("%s: 128 bytes %v, 129 bytes %v", name, answer(long[1:]), answer(long))
		}
	}
	for _, n := range []int{129, 1000} {
		if m := shortMessage(strings.Repeat("m", n)); len(m) > 128 {
			t.Errorf("a message of %d bytes", len(m))
		}
	}
}

// TestValidateTwice: the answer changes nothing.
func TestValidateTwice(t *testing.T) {
	r := startRig(t, nil)
	q := &csi.ValidateVolumeCapabilitiesRequest{VolumeId: makeVolume(t, r, "v"), VolumeCapabilities: []*csi.VolumeCapability{mountCap()}}
	first, err := r.ValidateVolumeCapabilities(t.Context(), q)
	wantCode(t, err, codes.OK)
	second, err := r.ValidateVolumeCapabilities(t.Context(), q)
	wantCode(t, err, codes.OK)
	if !proto.Equal(first, second) || first.GetConfirmed() == nil {
		t.Errorf("first %v, second %v", first, second)
	}
}

// TestOwnVariables: of the environment's CSI_ variables only the spec's own is
// named anywhere.
func TestOwnVariables(t *testing.T) {
	variable := regexp.MustCompile(`"CSI_[A-Z_]+`)
	seen := false
	err := filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, name := range variable.FindAllString(string(b), -1) {
			if seen = true; name != `"CSI_ENDPOINT` {
				t.Errorf("%s: %s", path, name)
			}
		}
		return err
	})
	if err != nil || !seen {
		t.Errorf("%v, seen %v", err, seen)
	}
}

// TestDefaultLogger: without a logger of the author's csikit logs where the
// program does, and no file of its own is opened.
func TestDefaultLogger(t *testing.T) {
	o := quietOptions()
	o.Logger = nil
	d, err := New(plainConfig(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.server.grpc.Stop) // its workers
	if d.logger != slog.Default() || d.server.logger != slog.Default() {
		t.Error("another logger")
	}
}
