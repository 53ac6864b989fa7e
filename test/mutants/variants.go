package mutants

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// Variants are drivers that are unusual, and within the spec.
func Variants() []Mutant {
	list := []Mutant{
		{Name: "variant-digits", Does: "the driver's name, and all IDs, end in digits", Install: both(
			reply(func(_ *csi.GetPluginInfoRequest, r *csi.GetPluginInfoResponse) { r.Name += "-2.v10" }),
			func(r *Rig) { ids(r, "", ".0123") })},
		{Name: "variant-odd-ids", Does: "IDs have slashes, spaces and Unicode", Install: func(r *Rig) { ids(r, "pööl/α β/", "/..") }},
		{Name: "variant-long-ids", Does: "IDs have 128 bytes", Install: longIDs},
		{Name: "variant-rounded", Does: "sizes are rounded up to 1 GiB", Install: func(r *Rig) { r.Traits = func(t *backends.Traits) { t.SizeStep, t.SizeMin = 1<<30, 1<<30 } }},
		{Name: "variant-strict-paths", Does: "any path that is not absolute and clean: INVALID_ARGUMENT, before anything else", Install: strictPaths},
		{Name: "variant-minimal", Does: "no optional capability at all", Install: minimal},
		{Name: "variant-no-list", Does: "no lists, no ControllerGetVolume", Install: func(r *Rig) {
			r.Mem.Without = append(r.Mem.Without, "VolumeLister", "SnapshotLister", "HealthChecker")
		}},
		{Name: "variant-no-alpha", Does: "nothing that the spec calls alpha", Install: func(r *Rig) { r.Options.NoAlpha = true }},
		{Name: "variant-impatient", Does: "a call for what is being worked on is ABORTED at once", Install: impatient},
		{Name: "variant-slow", Does: "one change of eight takes a quarter of a second", Install: slow},
		{Name: "variant-unavailable", Does: "one change of ten is UNAVAILABLE", Install: unavailable},
		{Name: "variant-snapshots-wait", Does: "a snapshot is ready after two seconds", Install: snapshotsWait},
		{Name: "variant-never-not-found", Does: "undoing what was never done is OK, of whatever volume", Install: neverNotFound},
		{Name: "variant-no-context", Does: "no volume_context", Install: volumesAs(func(v *csi.Volume) { v.VolumeContext = nil })},
		{Name: "variant-big-context", Does: "volume_context has nearly 4 KiB", Install: eachVolumeContext("path", strings.Repeat("/dir", 960))},
		{Name: "variant-small-pages", Does: "pages have one entry, whatever is asked for", Install: smallPages},
		{Name: "variant-odd-tokens", Does: "tokens look like binary, and are long", Install: oddTokens},
		{Name: "variant-split", Does: "the node half answers at another socket, node.sock beside the first", Install: func(r *Rig) { r.Split = true }},
		{Name: "variant-no-staging", Does: "STAGE_UNSTAGE_VOLUME is not advertised", Install: noStaging},
		{Name: "variant-one-mode", Does: "SINGLE_NODE_WRITER is the only access mode", Install: func(r *Rig) {
			r.Traits = func(t *backends.Traits) { t.Modes = []backends.AccessMode{backends.SingleNodeWriter} }
		}},
		{Name: "variant-block-only", Does: "raw block volumes alone", Base: Loop, Install: func(r *Rig) {
			r.Loop.EphemeralMax = 0
			r.Traits = func(t *backends.Traits) { t.Filesystem, t.FSTypes = false, nil }
		}},
		{Name: "variant-no-topology", Does: "no topology", Install: withoutTopology},
		{Name: "variant-capacity-unknown", Does: "capacity_bytes is 0: unknown", Install: volumesAs(func(v *csi.Volume) { v.CapacityBytes = 0 })},
		{Name: "variant-no-attach", Does: "no ControllerPublishVolume", Base: Loop, Install: func(r *Rig) { r.Loop.Attach = false }},
		{Name: "variant-attach-no-group", Does: "volume_mount_group where no pod is known: INVALID_ARGUMENT", Install: groupOfPodsAlone},
		{Name: "variant-loop", Does: "loop devices, file systems and raw block, as they are", Base: Loop, Install: func(*Rig) {}},
		{Name: "variant-dependent-snapshots", Does: "a volume with snapshots is not deleted: FAILED_PRECONDITION", Install: dependentSnapshots},
	}
	for i := range list {
		list[i].Class = Valid
	}
	return list
}

// groupOfPodsAlone takes a group of the node's calls alone: no sidecar sends one.
func groupOfPodsAlone(r *Rig) {
	grouped := func(caps ...*csi.VolumeCapability) bool {
		return slices.ContainsFunc(caps, func(c *csi.VolumeCapability) bool { return c.GetMount().GetVolumeMountGroup() != "" })
	}
	const msg = "volume_mount_group is a pod's"
	refuse(func(q *csi.CreateVolumeRequest) bool { return grouped(q.GetVolumeCapabilities()...) }, codes.InvalidArgument, msg)(r)
	refuse(func(q *csi.ControllerPublishVolumeRequest) bool { return grouped(q.GetVolumeCapability()) }, codes.InvalidArgument, msg)(r)
}

// ids puts something around each ID.
func ids(r *Rig, before, behind string) {
	in := func(s string) string {
		if rest, ok := strings.CutPrefix(s, before); ok {
			if rest, ok := strings.CutSuffix(rest, behind); ok {
				return rest
			}
		}
		return "unknown." + hex.EncodeToString([]byte(s))[:min(40, 2*len(s))] // none that we gave
	}
	out := func(s string) string { return before + s + behind }
	rewriteIDs(r, append(append(volumeFields[:0:0], volumeFields...), snapshotFields...), in, out)
}

func longIDs(r *Rig) {
	fill := strings.Repeat("0", 128)
	in := func(s string) string { return strings.TrimLeft(s, "0") }
	out := func(s string) string { return fill[:128-len(s)] + s }
	rewriteIDs(r, append(append(volumeFields[:0:0], volumeFields...), snapshotFields...), in, out)
}

func strictPaths(r *Rig) {
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		for _, name := range []string{"staging_target_path", "target_path", "volume_path"} {
			if f := req.ProtoReflect().Descriptor().Fields().ByTextName(name); f != nil {
				if p := req.ProtoReflect().Get(f).String(); relative(p) {
					return nil, status.Errorf(codes.InvalidArgument, "%s %q is not absolute", name, p)
				}
			}
		}
		return next(ctx, req)
	})
}

func minimal(r *Rig) {
	r.Mem.Without = append(r.Mem.Without, "Attacher", "Expander", "Snapshotter", "Cloner", "VolumeLister", "CapacityReporter", "Modifier",
		"HealthChecker", "TopologyReporter", "EphemeralProvisioner", "NodeHealthChecker", "StorageHealthChecker", "AttachLimiter", "StatsReporter", "Prober")
	r.Options.NoAlpha = true
}

// changes tells RPCs that change something.
func changes(method string) bool {
	for _, prefix := range []string{"Create", "Delete", "ControllerPublish", "ControllerUnpublish", "ControllerExpand", "ControllerModify", "NodeStage", "NodeUnstage", "NodePublish", "NodeUnpublish", "NodeExpand"} {
		if strings.HasPrefix(method, prefix) {
			return true
		}
	}
	return false
}

// impatient answers ABORTED where the driver behind would wait.
func impatient(r *Rig) {
	var busy counter
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		if !changes(method) {
			return next(ctx, req)
		}
		key := stringField(req, "volume_id") + stringField(req, "snapshot_id") + stringField(req, "name") + stringField(req, "group_snapshot_id")
		n, done := busy.enter(key)
		defer done()
		if key != "" && n > 1 {
			return nil, status.Errorf(codes.Aborted, "an operation for %q is pending", key)
		}
		return next(ctx, req)
	})
}

func slow(r *Rig) {
	var n atomic.Int64
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		switch {
		case !changes(method):
		case n.Add(1)%8 == 0:
			after(ctx, 250*time.Millisecond)
		default:
			after(ctx, 10*time.Millisecond)
		}
		return next(ctx, req)
	})
}

func unavailable(r *Rig) {
	var n atomic.Int64
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		if changes(method) && n.Add(1)%10 == 0 {
			return nil, status.Error(codes.Unavailable, "the storage is being failed over, try again")
		}
		return next(ctx, req)
	})
}

func snapshotsWait(r *Rig) {
	ready := func(s *csi.Snapshot) bool { return time.Since(s.GetCreationTime().AsTime()) > 2*time.Second }
	snapshotsAs(func(s *csi.Snapshot) { s.ReadyToUse = ready(s) })(r)
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		resp, err := next(ctx, req)
		var g *csi.VolumeGroupSnapshot
		switch m := resp.(type) {
		case *csi.CreateVolumeGroupSnapshotResponse:
			g = m.GetGroupSnapshot()
		case *csi.GetVolumeGroupSnapshotResponse:
			g = m.GetGroupSnapshot()
		}
		for _, s := range g.GetSnapshots() {
			g.ReadyToUse = g.GetReadyToUse() && s.GetReadyToUse()
		}
		return resp, err
	})
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		if id := q.GetVolumeContentSource().GetSnapshot().GetSnapshotId(); id != "" {
			list, err := r.controller().ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: id})
			if err == nil && len(list.GetEntries()) == 1 && !ready(list.GetEntries()[0].GetSnapshot()) {
				return nil, status.Errorf(codes.Unavailable, "snapshot %s is being copied", id)
			}
		}
		return next(ctx, q)
	})
}

func neverNotFound(r *Rig) {
	code[*csi.NodeUnpublishVolumeRequest](codes.NotFound, codes.OK)(r)
	code[*csi.NodeUnstageVolumeRequest](codes.NotFound, codes.OK)(r)
	code[*csi.ControllerUnpublishVolumeRequest](codes.NotFound, codes.OK)(r)
}

func smallPages(r *Rig) {
	requestWhen(func(q *csi.ListVolumesRequest) bool { return q.GetMaxEntries() >= 0 }, func(q *csi.ListVolumesRequest) { q.MaxEntries = 1 })(r)
	requestWhen(func(q *csi.ListSnapshotsRequest) bool { return q.GetMaxEntries() >= 0 }, func(q *csi.ListSnapshotsRequest) { q.MaxEntries = 1 })(r)
}

func oddTokens(r *Rig) {
	const head = "\u00ff\u0001\u001f+/=%00\u00fe"
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		fields := req.ProtoReflect().Descriptor().Fields()
		if f := fields.ByName("starting_token"); f != nil && stringField(req, "starting_token") != "" {
			req = proto.Clone(req)
			token, ok := strings.CutPrefix(stringField(req, "starting_token"), head)
			plain, err := base64.StdEncoding.DecodeString(token)
			if !ok || err != nil {
				return nil, status.Errorf(codes.Aborted, "starting_token %q is none of ours", token)
			}
			setString(req, "starting_token", string(plain))
		}
		resp, err := next(ctx, req)
		if err == nil && stringField(resp, "next_token") != "" {
			setString(resp, "next_token", head+base64.StdEncoding.EncodeToString([]byte(stringField(resp, "next_token"))))
		}
		return resp, err
	})
}

// noStaging stages when it publishes, in a directory of the driver's own.
func noStaging(r *Rig) {
	dropNodeCapability(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)(r)
	unimplemented[*csi.NodeStageVolumeRequest]()(r)
	unimplemented[*csi.NodeUnstageVolumeRequest]()(r)
	var targets memory[int]
	dir := func(id string) string { return fmt.Sprintf("%s/staging/%x", r.Dir, id) }
	around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		if q.GetVolumeId() == "" || q.GetTargetPath() == "" || q.GetVolumeCapability() == nil || q.GetVolumeContext()["csi.storage.k8s.io/ephemeral"] == "true" {
			return next(ctx, q)
		}
		_, err := csi.NewNodeClient(r.conn).NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: q.GetVolumeId(), StagingTargetPath: dir(q.GetVolumeId()), VolumeCapability: q.GetVolumeCapability(),
			PublishContext: q.GetPublishContext(), VolumeContext: q.GetVolumeContext(), Secrets: q.GetSecrets(),
		})
		if err != nil {
			return nil, err
		}
		q = proto.Clone(q).(*csi.NodePublishVolumeRequest)
		q.StagingTargetPath = dir(q.GetVolumeId())
		resp, err := next(ctx, q)
		switch {
		case err == nil:
			targets.put(q.GetVolumeId()+" "+q.GetTargetPath(), 1)
		case final(err) && !targets.hasPrefix(q.GetVolumeId()+" "): // nobody will unpublish what was not published
			_, uerr := csi.NewNodeClient(r.conn).NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: q.GetVolumeId(), StagingTargetPath: dir(q.GetVolumeId())})
			if uerr != nil {
				return nil, uerr
			}
		}
		return resp, err
	})
	around(r, func(ctx context.Context, q *csi.NodeUnpublishVolumeRequest, next func(context.Context, *csi.NodeUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err != nil {
			return nil, err
		}
		targets.drop(q.GetVolumeId() + " " + q.GetTargetPath())
		if !targets.hasPrefix(q.GetVolumeId() + " ") {
			_, err = csi.NewNodeClient(r.conn).NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: q.GetVolumeId(), StagingTargetPath: dir(q.GetVolumeId())})
		}
		return resp, err
	})
}

// final tells whether a CO takes an error for the end of a call.
func final(err error) bool {
	return !slices.Contains([]codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted}, status.Code(err))
}

// dependentSnapshots does not delete a volume that has snapshots.
func dependentSnapshots(r *Rig) {
	around(r, func(ctx context.Context, q *csi.DeleteVolumeRequest, next deleteNext) (*csi.DeleteVolumeResponse, error) {
		if q.GetVolumeId() != "" {
			list, err := r.controller().ListSnapshots(ctx, &csi.ListSnapshotsRequest{SourceVolumeId: q.GetVolumeId()})
			if err == nil && len(list.GetEntries()) > 0 {
				return nil, status.Errorf(codes.FailedPrecondition, "volume %s has %d snapshots", q.GetVolumeId(), len(list.GetEntries()))
			}
		}
		return next(ctx, q)
	})
}
