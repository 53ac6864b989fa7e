package csidriver

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// rig is a driver that serves, and its client.
type rig struct {
	csi.IdentityClient
	csi.ControllerClient
	csi.NodeClient
	csi.GroupControllerClient
	csi.SnapshotMetadataClient
	driver  *Driver
	backend *memory
	engine  *fakeEngine
	log     *logBuffer
	socket  string
	stop    func() error
}

// setup is what a test changes before the driver starts.
type setup struct {
	cfg     *Config
	opts    *Options
	backend *memory
	engine  *fakeEngine
	wait    *patience
}

// patient is of a driver in which nothing that should happen has to happen soon.
func patient() patience {
	return patience{answer: 5 * time.Minute, stop: 5 * time.Minute, health: 5 * time.Minute, exchange: 10 * time.Minute}
}

func newRig(t *testing.T, change func(*setup)) *rig {
	t.Helper()
	r := &rig{backend: newMemory(), engine: newFakeEngine(), log: new(logBuffer)}
	cfg := Config{Name: "memory.csikit.dev", Version: "v1", Traits: memoryTraits(), Controller: r.backend, Node: r.backend}
	opts := &Options{NodeID: "node-1", Engine: r.engine, Logger: r.log.logger(slog.LevelDebug)}
	wait := patient()
	if change != nil {
		change(&setup{&cfg, opts, r.backend, r.engine, &wait})
	}
	d, err := New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	d.server.patience = wait
	r.socket = filepath.Join(t.TempDir(), "csi.sock")
	path := "unix://" + r.socket
	lis, err := Listen(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, lis) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() { _ = r.stop() }) // what it answers is for the test that calls it
	r.dial(t, path)
	r.driver = d
	return r
}

func (r *rig) dial(t *testing.T, path string) {
	conn := connect(t, path, insecure.NewCredentials())
	r.IdentityClient, r.ControllerClient, r.NodeClient = csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	r.GroupControllerClient, r.SnapshotMetadataClient = csi.NewGroupControllerClient(conn), csi.NewSnapshotMetadataClient(conn)
}

// ready waits until recovery is done.
func (r *rig) ready(t *testing.T) *rig {
	t.Helper()
	for {
		resp, err := r.Probe(t.Context(), &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetReady().GetValue() {
			return r
		}
	}
}

func startRig(t *testing.T, change func(*setup)) *rig {
	t.Helper()
	return newRig(t, change).ready(t)
}

func wantCode(t *testing.T, err error, want codes.Code, words ...string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != want {
		t.Errorf("code %v, want %v: %v", st.Code(), want, err)
	}
	for _, w := range words {
		if !strings.Contains(st.Message(), w) {
			t.Errorf("message %q does not say %q", st.Message(), w)
		}
	}
	if want != codes.OK && (st.Message() == "" || len(st.Details()) > 0) {
		t.Errorf("status %v: a message and no details are wanted", st.Proto())
	}
}

func mountCap() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
}

func blockCap() *csi.VolumeCapability {
	c := mountCap()
	c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	return c
}

func capMode(m csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	c := mountCap()
	c.AccessMode.Mode = m
	return c
}

func createReq(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name:               name,
		VolumeCapabilities: []*csi.VolumeCapability{mountCap()},
		CapacityRange:      &csi.CapacityRange{RequiredBytes: gi},
	}
}

// testStart is long ago.
var testStart = time.Unix(1, 0)
