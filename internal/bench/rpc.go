package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
)

// rpcServer is one of the servers that are compared, and what was measured.
type rpcServer struct {
	conn       *served
	name       string
	latency    []*figure // by request
	throughput []*figure
}

// rpcRequest is an RPC that is sent.
type rpcRequest struct {
	name string
	call func(context.Context, *grpc.ClientConn) error
	goal bool // the RPC itself: what a driver does in it is no part of the goal
	note string
}

func rpcRequests() []rpcRequest {
	publish := &csi.NodePublishVolumeRequest{
		VolumeId: "pvc-4f0c", TargetPath: "/var/lib/kubelet/pods/x/volumes/y/mount", StagingTargetPath: "/var/lib/kubelet/plugins/z",
		Secrets:       map[string]string{"user": "u", "password": "p"},
		VolumeContext: map[string]string{"pool": "fast"},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
	}
	return []rpcRequest{
		{"Probe", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := csi.NewIdentityClient(c).Probe(ctx, &csi.ProbeRequest{})
			return err
		}, true, ""},
		{"NodePublishVolume", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := csi.NewNodeClient(c).NodePublishVolume(ctx, publish)
			return err
		}, false, "an engine that does nothing; csikit's share is validation, conversion and the operation on a goroutine of its own"},
	}
}

// rpcs measures whole RPCs over a Unix socket, client and server in this process.
func rpcs(ctx context.Context, c config, dir string) (t *table, err error) {
	servers, err := rpcServers(ctx, dir)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.conn.stop())
		}
	}()
	if err != nil {
		return nil, err
	}
	requests := rpcRequests()
	var tasks []task
	for i, r := range requests {
		for _, s := range servers {
			if err := warmUp(ctx, s, r); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", r.name, s.name, err)
			}
			s.latency = append(s.latency, &figure{name: s.name})
			s.throughput = append(s.throughput, &figure{name: s.name, unit: perSecond})
			tasks = append(tasks,
				s.latency[i].timed(c.slice, func() error { return r.call(ctx, s.conn.ClientConn) }),
				func(ctx context.Context) error {
					rate, err := flood(ctx, c.slice, 16, func() error { return r.call(ctx, s.conn.ClientConn) })
					s.throughput[i].rounds.add(rate)
					return err
				})
		}
	}
	if err := interleave(ctx, c.rounds, tasks...); err != nil {
		return nil, err
	}
	return rpcTable(requests, servers), nil
}

// rpcTable compares the first server with the others.
func rpcTable(requests []rpcRequest, servers []*rpcServer) *table {
	t := &table{title: "RPC over a Unix socket"}
	for i, r := range requests {
		latency := &row{item: r.name + ", p50, c=1", csikit: servers[0].latency[i], note: r.note}
		throughput := &row{item: r.name + ", c=16", csikit: servers[0].throughput[i]}
		for _, s := range servers[1:] {
			latency.others = append(latency.others, s.latency[i])
			throughput.others = append(throughput.others, s.throughput[i])
		}
		if r.goal {
			latency.goal, throughput.goal = atMostTimes(1.02), atLeastTimes(0.97)
		}
		t.rows = append(t.rows, latency, throughput)
	}
	return t
}

// rpcServers are csikit's, grpc-go as it comes, and grpc-go with the stream
// workers that csikit has set.
func rpcServers(ctx context.Context, dir string) ([]*rpcServer, error) {
	b, err := mem.New(&mem.Options{Node: "bench"})
	if err != nil {
		return nil, err
	}
	ours, err := serveBackend(ctx, dir, "rpc-csikit", b)
	if err != nil {
		return nil, err
	}
	servers := []*rpcServer{{conn: ours, name: "csikit"}}
	for name, o := range map[string][]grpc.ServerOption{"bare": nil, "bare with stream workers": {grpc.NumStreamWorkers(4)}} {
		bare, err := serveBare(ctx, dir, fmt.Sprintf("rpc-%d", len(servers)), &idle{}, o...)
		if err != nil {
			return servers, err
		}
		servers = append(servers, &rpcServer{conn: bare, name: name})
	}
	if servers[1].name != "bare" {
		servers[1], servers[2] = servers[2], servers[1]
	}
	return servers, nil
}

// driverBackend is what both halves of a driver are made of.
type driverBackend interface {
	backends.Controller
	backends.Node
	Traits() backends.Traits
}

// serveBackend serves a backend by csikit, with an engine that does nothing unless
// change gives another one.
func serveBackend(ctx context.Context, dir, name string, b driverBackend, change ...func(*csidriver.Options)) (*served, error) {
	o := &csidriver.Options{
		NodeID: "bench", Engine: idleEngine{},
		Logger: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(o)
	}
	d, err := csidriver.New(csidriver.Config{Name: "bench.csikit.dev", Traits: b.Traits(), Controller: b, Node: b}, o)
	if err != nil {
		return nil, err
	}
	return serveCSI(ctx, dir, name, d.Serve)
}

// warmUp waits until the server is ready, and then for caches to fill.
func warmUp(ctx context.Context, s *rpcServer, r rpcRequest) error {
	if err := awaitReady(ctx, s.conn.ClientConn); err != nil {
		return err
	}
	for range 2000 {
		if err := r.call(ctx, s.conn.ClientConn); err != nil {
			return err
		}
	}
	return nil
}

// flood calls from n goroutines for d, and gives the calls a second.
func flood(ctx context.Context, d time.Duration, n int, call func() error) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var done atomic.Int64
	begin := time.Now()
	for range n {
		wg.Go(func() {
			for time.Since(begin) < d && ctx.Err() == nil {
				if err := call(); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds(), context.Cause(ctx)
}
