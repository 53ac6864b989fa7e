package csidriver

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// allowedCodes are those of the spec's general scheme and of the table of each
// RPC, for a backend that does not fail. UNAVAILABLE and INTERNAL are not there.
var (
	generalCodes = []codes.Code{codes.OK, codes.InvalidArgument, codes.Aborted}
	tableCodes   = map[string][]codes.Code{
		"CreateVolume":               {codes.NotFound, codes.AlreadyExists, codes.ResourceExhausted, codes.OutOfRange},
		"DeleteVolume":               {codes.FailedPrecondition},
		"ValidateVolumeCapabilities": {codes.NotFound},
		"ControllerGetVolume":        {codes.NotFound},
		"ControllerPublishVolume":    {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted},
		"ControllerUnpublishVolume":  {codes.NotFound},
		"ControllerGetVolumeHealth":  {codes.NotFound},
		"NodeGetVolumeHealth":        {codes.NotFound},
		"ControllerExpandVolume":     {codes.NotFound, codes.FailedPrecondition, codes.OutOfRange},
		"ControllerModifyVolume":     {codes.NotFound},
		// The tables of CreateSnapshot and CreateVolumeGroupSnapshot have no row for
		// a volume that is not there; ControllerExpandVolume's has.
		"CreateSnapshot":            {codes.NotFound, codes.AlreadyExists, codes.ResourceExhausted},
		"DeleteSnapshot":            {codes.FailedPrecondition},
		"GetSnapshot":               {codes.NotFound},
		"CreateVolumeGroupSnapshot": {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted},
		"DeleteVolumeGroupSnapshot": {codes.FailedPrecondition},
		"GetVolumeGroupSnapshot":    {codes.NotFound},
		"GetMetadataAllocated":      {codes.NotFound, codes.OutOfRange},
		"GetMetadataDelta":          {codes.NotFound, codes.OutOfRange, codes.FailedPrecondition},
		"NodeStageVolume":           {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition},
		"NodeUnstageVolume":         {codes.NotFound},
		"NodePublishVolume":         {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition},
		"NodeUnpublishVolume":       {codes.NotFound},
		"NodeGetVolumeStats":        {codes.NotFound},
		"NodeExpandVolume":          {codes.NotFound, codes.FailedPrecondition, codes.OutOfRange},
	}
)

// directly calls an RPC through all of csikit's chain but the network.
type directly struct {
	driver  *Driver
	methods []directMethod
}

type directMethod struct {
	name string
	full string
	desc *grpc.MethodDesc // nil: a stream
	strm *grpc.StreamDesc
	srv  any
}

func callDirectly(d *Driver) *directly {
	c, control := &directly{driver: d}, newController(d)
	for _, s := range []struct {
		desc *grpc.ServiceDesc
		srv  any
	}{
		{&csi.Identity_ServiceDesc, &identity{Driver: d}},
		{&csi.Controller_ServiceDesc, control},
		{&csi.GroupController_ServiceDesc, &groupController{controller: control}},
		{&csi.SnapshotMetadata_ServiceDesc, &snapshotMetadata{controller: control}},
		{&csi.Node_ServiceDesc, newNode(d)},
	} {
		for i := range s.desc.Methods {
			name := s.desc.Methods[i].MethodName
			c.methods = append(c.methods, directMethod{name, "/" + s.desc.ServiceName + "/" + name, &s.desc.Methods[i], nil, s.srv})
		}
		for i := range s.desc.Streams {
			name := s.desc.Streams[i].StreamName
			c.methods = append(c.methods, directMethod{name, "/" + s.desc.ServiceName + "/" + name, nil, &s.desc.Streams[i], s.srv})
		}
	}
	return c
}

func (c *directly) chain(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return c.driver.server.unary(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return c.driver.gate(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			return convertErrors(ctx, req, info, handler)
		})
	})
}

// call answers decoded=false when data is no message of this RPC.
func (c *directly) call(ctx context.Context, m directMethod, data []byte) (decoded bool, err error) {
	if m.strm != nil {
		return c.stream(ctx, m, data)
	}
	_, err = m.desc.Handler(m.srv, ctx, func(into any) error {
		err := proto.Unmarshal(data, into.(proto.Message))
		decoded = err == nil
		return err
	}, c.chain)
	return decoded, err
}

func (c *directly) stream(ctx context.Context, m directMethod, data []byte) (decoded bool, err error) {
	ss, info := &directStream{ctx: ctx, data: data}, &grpc.StreamServerInfo{FullMethod: m.full}
	err = c.driver.server.stream(m.srv, ss, info, func(srv any, stream grpc.ServerStream) error {
		return c.driver.gateStream(srv, stream, info, func(srv any, stream grpc.ServerStream) error {
			return convertStreamErrors(srv, stream, info, m.strm.Handler)
		})
	})
	return ss.decoded, err
}

// directStream gives one request, and takes what comes.
type directStream struct {
	grpc.ServerStream
	ctx     context.Context
	data    []byte
	decoded bool
}

func (s *directStream) Context() context.Context { return s.ctx }
func (s *directStream) SendMsg(any) error        { return nil }

func (s *directStream) RecvMsg(into any) error {
	err := proto.Unmarshal(s.data, into.(proto.Message))
	s.decoded = err == nil
	return err
}

// fuzzDriver has every service. change, nil ok, takes some of them away.
func fuzzDriver(t testing.TB, change func(*Config, *memory)) (*directly, *data, *fakeEngine) {
	m, e := newMemory(), newFakeEngine()
	m.place = backends.Segments{"a": "b"} // as fullRequests have it
	o := &Options{NodeID: "node-1", Engine: e, Logger: slog.New(slog.DiscardHandler)}
	cfg := Config{Name: "memory.csikit.dev", Version: "v1", Traits: memoryTraits()}
	var a *attachments
	withAttacher(&a)(&setup{cfg: &cfg, backend: m})
	sick := &ill{health: map[string][]backends.Health{"v": {degraded("A", "m"), degraded("A", "n")}}, listed: []backends.VolumeHealth{{ID: "v"}}}
	services := newData(m)
	cfg.Traits.TopologyKeys, cfg.Traits.SnapshotTopology = []string{"a"}, true
	b := struct {
		*data
		backends.Attacher
		backends.PublishedNodesLister
		*ill
	}{services, a, a, sick}
	cfg.Controller, cfg.Node = b, b
	if change != nil {
		change(&cfg, m)
	}
	d, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.server.grpc.Stop) // its workers
	d.ready.Store(true)
	return callDirectly(d), services, e
}

// seeds are requests that find what those before them made.
func seeds() []proto.Message {
	return []proto.Message{
		createReq("v"),
		snapshotReq("s", "id-v"),
		restoreReq("restored", snapshotSource("sid-s")),
		restoreReq("cloned", volumeSource("id-v")),
		modifyReq("iops", "5"),
		groupReq("g", "id-v", "id-cloned"),
		&csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "gid-g"},
		&csi.GetSnapshotRequest{SnapshotId: "sid-s"},
		&csi.ListSnapshotsRequest{SnapshotId: "sid-s"},
		&csi.ListSnapshotsRequest{SourceVolumeId: "id-v"},
		&csi.GetMetadataAllocatedRequest{SnapshotId: "sid-s", MaxResults: 3, StartingOffset: 5 << 10},
		&csi.GetMetadataAllocatedRequest{SnapshotId: "sid-s", StartingOffset: -1},
		&csi.GetMetadataDeltaRequest{BaseSnapshotId: "sid-s", TargetSnapshotId: "sid-g/id-v"},
		deleteSnapshot("sid-g/id-v"),
		deleteGroup("gid-g"),
		deleteSnapshot("sid-s"),
	}
}

// FuzzRequests sends whatever decodes to every RPC: nothing panics, and no code
// is outside of the spec's tables.
func FuzzRequests(f *testing.F) {
	c, m, e := fuzzDriver(f, nil)
	for which, method := range c.methods {
		f.Add(uint8(which), []byte{})
		for _, full := range fullRequests() {
			if name := string(full.ProtoReflect().Descriptor().Name()); name != method.name+"Request" {
				continue
			}
			data, err := proto.Marshal(full)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(which), data)
		}
	}
	for _, m := range seeds() {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for which, method := range c.methods {
			if method.name+"Request" == string(m.ProtoReflect().Descriptor().Name()) {
				f.Add(uint8(which), data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		method := c.methods[int(which)%len(c.methods)]
		decoded, err := c.call(t.Context(), method, data)
		if !decoded {
			t.Skip("no message of this RPC")
		}
		st := status.Convert(err)
		allowed := slices.Concat(generalCodes, tableCodes[method.name])
		if !c.driver.served[method.full] {
			allowed = []codes.Code{codes.Unimplemented}
		}
		if !slices.Contains(allowed, st.Code()) || strings.Contains(st.Message(), "panic") {
			t.Errorf("%s answered %v", method.name, st)
		}
		m.mu.Lock()
		if len(m.volumes) > 1000 {
			m.volumes = make(map[string]*backends.Volume)
		}
		if len(m.snapshots) > 1000 {
			m.snapshots, m.groups = make(map[string]*backends.Snapshot), make(map[string]*backends.GroupSnapshot)
		}
		m.modified, m.restored = nil, nil
		m.mu.Unlock()
		e.mu.Lock()
		if len(e.paths) > 1000 {
			e.paths = make(map[string]string)
		}
		e.mu.Unlock()
	})
}
