package co

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/internal/csiclient"
)

// canary is in every secret of every request, and in what the backend says of its
// failures.
const canary = "canary-7f3a9c"

func secrets() map[string]string { return map[string]string{"password": canary} }

// fixture is a driver of one process with the objects that an RPC needs.
type fixture struct {
	*process
	t       *testing.T
	m       *machine
	c       *clients
	dir     string
	release chan struct{} // closed at the end, for what hangs for good

	vol, source, snap, older, group string
	members                         []string
	publishContext                  map[string]string
}

// newFixture is called in a bubble.
func newFixture(t *testing.T, o mem.Options, change func(*setup)) *fixture {
	f := &fixture{t: t, m: newMachine(t), release: make(chan struct{})}
	f.dir = t.TempDir()
	o.Node = thisNode
	f.process = f.m.spawn(t, o, change)
	f.c = dial(t, f.connect)
	return f
}

func (f *fixture) ready() {
	f.t.Helper()
	if err := csiclient.WaitReady(f.t.Context(), f.c.conn); err != nil {
		f.t.Fatal(err)
	}
}

// close ends the bubble's goroutines.
func (f *fixture) close() {
	close(f.release)
	_ = f.end() // may name what was cut
	if err := f.c.conn.Close(); err != nil {
		f.t.Error(err)
	}
	synctest.Wait()
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// inject plants a fault in a method of the backend, or at "engine".
func (f *fixture) inject(place string, fault mem.Fault) {
	if place != "engine" {
		fault.Method = place
		f.backend.Inject(fault)
		return
	}
	var happened atomic.Int64
	hook := func(ctx context.Context, method string) error {
		if n := happened.Add(1); fault.Times > 0 && n > int64(fault.Times) {
			return nil
		}
		if fault.Do != nil {
			if err := fault.Do(ctx, mem.Call{Method: method}); err != nil {
				return err
			}
		}
		if fault.Panic != nil {
			panic(fault.Panic)
		}
		return fault.Err
	}
	if fault.At == mem.After {
		f.engine.after = hook
	} else {
		f.engine.before = hook
	}
}

// engineAgain plants a fault in the same place once more.
func (f *fixture) engineAgain(fault mem.Fault, r *rpc) { f.inject(r.at, fault) }

func mountCapability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
}

const mi = 1 << 20

func createRequest(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: 64 * mi},
		VolumeCapabilities: []*csi.VolumeCapability{mountCapability()}, Secrets: secrets(),
	}
}

func (f *fixture) make(name string) string {
	f.t.Helper()
	resp, err := f.c.CreateVolume(f.t.Context(), createRequest(name))
	f.must(err)
	return resp.GetVolume().GetVolumeId()
}

func (f *fixture) cut(name, volume string) string {
	f.t.Helper()
	resp, err := f.c.CreateSnapshot(f.t.Context(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume, Secrets: secrets()})
	f.must(err)
	return resp.GetSnapshot().GetSnapshotId()
}

func (f *fixture) attach() {
	f.t.Helper()
	resp, err := f.c.ControllerPublishVolume(f.t.Context(), f.attachRequest())
	f.must(err)
	f.publishContext = resp.GetPublishContext()
}

func (f *fixture) attachRequest() *csi.ControllerPublishVolumeRequest {
	return &csi.ControllerPublishVolumeRequest{VolumeId: f.vol, NodeId: thisNode, VolumeCapability: mountCapability(), Secrets: secrets()}
}

func (f *fixture) staging() string { return filepath.Join(f.dir, "staging") }
func (f *fixture) target() string  { return filepath.Join(f.dir, "target") }

func (f *fixture) stageRequest() *csi.NodeStageVolumeRequest {
	return &csi.NodeStageVolumeRequest{
		VolumeId: f.vol, StagingTargetPath: f.staging(), VolumeCapability: mountCapability(),
		PublishContext: f.publishContext, Secrets: secrets(),
	}
}

func (f *fixture) publishRequest() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId: f.vol, StagingTargetPath: f.staging(), TargetPath: f.target(), VolumeCapability: mountCapability(),
		PublishContext: f.publishContext, Secrets: secrets(),
	}
}

func (f *fixture) podRequest() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId: "csi-pod", TargetPath: f.target(), VolumeCapability: mountCapability(), Secrets: secrets(),
		VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/serviceAccount.tokens": canary},
	}
}

// Levels of preparation.

func withVolume(f *fixture)   { f.vol = f.make("v") }
func withSource(f *fixture)   { f.source = f.make("source") }
func withAttached(f *fixture) { withVolume(f); f.attach() }

func withSnapshot(f *fixture) {
	withVolume(f)
	f.must(f.m.store.WriteAt(f.vol, []byte("a"), 0))
	f.older = f.cut("older", f.vol)
	f.must(f.m.store.WriteAt(f.vol, []byte("b"), mi))
	f.snap = f.cut("s", f.vol)
}

func withGroup(f *fixture) {
	withVolume(f)
	withSource(f)
	resp, err := f.c.CreateVolumeGroupSnapshot(f.t.Context(), f.groupRequest())
	f.must(err)
	f.group = resp.GetGroupSnapshot().GetGroupSnapshotId()
	for _, s := range resp.GetGroupSnapshot().GetSnapshots() {
		f.members = append(f.members, s.GetSnapshotId())
	}
}

func (f *fixture) groupRequest() *csi.CreateVolumeGroupSnapshotRequest {
	return &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{f.vol, f.source}, Secrets: secrets()}
}

func withStaged(f *fixture) {
	withAttached(f)
	_, err := f.c.NodeStageVolume(f.t.Context(), f.stageRequest())
	f.must(err)
}

func withPublished(f *fixture) {
	withStaged(f)
	_, err := f.c.NodePublishVolume(f.t.Context(), f.publishRequest())
	f.must(err)
}

func withPod(f *fixture) {
	_, err := f.c.NodePublishVolume(f.t.Context(), f.podRequest())
	f.must(err)
}

// drained reads a stream to its end.
func drained[T any](stream grpc.ServerStreamingClient[T], err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// call runs one RPC and looks at what every answer must be.
func (f *fixture) call(r *rpc, ctx context.Context) error {
	f.t.Helper()
	err := r.call(ctx, f)
	f.look(r.name, err)
	return err
}

// look holds an error to what every one must be.
func (f *fixture) look(name string, err error) {
	f.t.Helper()
	if err == nil {
		return
	}
	st := status.Convert(err)
	if strings.TrimSpace(st.Message()) == "" || len(st.Details()) > 0 {
		f.t.Errorf("%s: %v: a message and no details are wanted", name, st.Proto())
	}
	if strings.Contains(st.Message(), canary) {
		f.t.Errorf("%s: the message shows a secret: %q", name, st.Message())
	}
}

func limited(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
