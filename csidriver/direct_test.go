package csidriver

import (
	"context"
	"log/slog"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// directly calls an RPC through all of csikit's chain but the network.
type directly struct {
	driver  *Driver
	methods []directMethod
	plant   func(proto.Message)                           // changes a request before it is served; nil ok
	answers func(m directMethod, req, resp proto.Message) // sees each answer; nil ok
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
	var req proto.Message
	resp, err := m.desc.Handler(m.srv, ctx, func(into any) error {
		req = into.(proto.Message)
		err := c.decode(data, req)
		decoded = err == nil
		return err
	}, c.chain)
	if err == nil && c.answers != nil {
		c.answers(m, req, resp.(proto.Message))
	}
	return decoded, err
}

func (c *directly) decode(data []byte, into proto.Message) error {
	err := proto.Unmarshal(data, into)
	if err == nil && c.plant != nil {
		c.plant(into)
	}
	return err
}

func (c *directly) stream(ctx context.Context, m directMethod, data []byte) (decoded bool, err error) {
	ss, info := &directStream{calls: c, method: m, ctx: ctx, data: data}, &grpc.StreamServerInfo{FullMethod: m.full}
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
	calls   *directly
	method  directMethod
	ctx     context.Context
	data    []byte
	req     proto.Message
	decoded bool
}

func (s *directStream) Context() context.Context { return s.ctx }

func (s *directStream) SendMsg(m any) error {
	if s.calls.answers != nil {
		s.calls.answers(s.method, s.req, m.(proto.Message))
	}
	return nil
}

func (s *directStream) RecvMsg(into any) error {
	s.req = into.(proto.Message)
	err := s.calls.decode(s.data, s.req)
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
