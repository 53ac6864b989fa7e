package csidriver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/mounter"
)

// memEngine is the node engine without a machine: it keeps what is staged and
// published where, and asks package mem for the rest.
type memEngine struct {
	backend *mem.Backend
	mu      sync.Mutex
	paths   map[string]memPath
}

type memPath struct {
	id, own   string // own is another one for an ephemeral volume
	how       string
	published bool
	ephemeral bool
}

func (e *memEngine) Start(context.Context) error { return nil }
func (e *memEngine) Close() error                { return nil }

// used tells whether a path has this already, and refuses when it has another.
// mu is held.
func (e *memEngine) used(path string, want memPath) (bool, error) {
	have, ok := e.paths[path]
	if ok && have != want {
		return true, fmt.Errorf("%w: %s", backends.ErrIncompatible, path)
	}
	return ok, nil
}

func (e *memEngine) open(ctx context.Context, id string, c backends.Capability, s backends.Secrets) error {
	_, err := e.backend.OpenVolume(ctx, backends.OpenVolumeRequest{ID: id, Capability: c, Secrets: s})
	return err
}

// close closes the volume with its last path. mu is held.
func (e *memEngine) close(ctx context.Context, id string) error {
	for _, p := range e.paths {
		if p.own == id {
			return nil
		}
	}
	return e.backend.CloseVolume(ctx, backends.CloseVolumeRequest{ID: id})
}

func howOf(c backends.Capability, ro bool) string {
	return fmt.Sprint(c.Mode, c.Block, c.FSType, c.Group, ro)
}

func (e *memEngine) Stage(ctx context.Context, r mounter.StageRequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := memPath{id: r.ID, own: r.ID, how: howOf(r.Capability, false)}
	if used, err := e.used(r.Path, p); used {
		return err
	}
	if err := e.open(ctx, r.ID, r.Capability, r.Secrets); err != nil {
		return err
	}
	e.paths[r.Path] = p
	return nil
}

func (e *memEngine) Unstage(ctx context.Context, r mounter.UnstageRequest) error {
	return e.leave(ctx, r.Path, r.ID, false)
}

func (e *memEngine) leave(ctx context.Context, path, id string, published bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.paths[path]
	if !ok || p.id != id || p.published != published {
		return nil
	}
	delete(e.paths, path)
	if err := e.close(ctx, p.own); err != nil || !p.ephemeral {
		return err
	}
	return e.backend.DeleteEphemeral(ctx, backends.DeleteEphemeralRequest{ID: id, VolumeID: p.own})
}

func (e *memEngine) Publish(ctx context.Context, r mounter.PublishRequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := memPath{id: r.ID, own: r.ID, how: howOf(r.Capability, r.ReadOnly), published: true, ephemeral: r.Ephemeral}
	if r.Ephemeral {
		v, err := e.backend.CreateEphemeral(ctx, backends.CreateEphemeralRequest{
			ID: r.ID, Parameters: r.Context, Capability: r.Capability, ReadOnly: r.ReadOnly, Owner: r.Owner, Secrets: r.Secrets,
		})
		if err != nil {
			return err
		}
		if p.own = v.ID; e.open(ctx, v.ID, r.Capability, r.Secrets) != nil {
			return backends.ErrPrecondition
		}
	} else if s, ok := e.paths[r.StagingPath]; !ok || s.id != r.ID || s.published {
		return fmt.Errorf("%w: it is not staged at %s", backends.ErrPrecondition, r.StagingPath)
	}
	used, err := e.used(r.Path, p)
	if err != nil {
		return err
	}
	err = e.backend.PrepareTarget(ctx, backends.TargetRequest{
		ID: p.own, Path: r.Path, ReadOnly: r.ReadOnly, Again: used, Context: r.Context, Owner: r.Owner, Secrets: r.Secrets,
	})
	if err == nil {
		e.paths[r.Path] = p
	}
	return err
}

func (e *memEngine) Unpublish(ctx context.Context, r mounter.UnpublishRequest) error {
	return e.leave(ctx, r.Path, r.ID, true)
}

func (e *memEngine) Health(_ context.Context, r mounter.HealthRequest) ([]backends.Health, error) {
	if _, used := e.InUse(r.ID); !used {
		return nil, backends.VolumeNotFound(r.ID)
	}
	return nil, nil
}

func (e *memEngine) at(path, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paths[path].id != id {
		return fmt.Errorf("%s: %w", path, backends.VolumeNotFound(id))
	}
	return nil
}

func (e *memEngine) Expand(ctx context.Context, r mounter.ExpandRequest) (int64, error) {
	if err := e.at(r.Path, r.ID); err != nil {
		return 0, err
	}
	return r.Range.Required, e.backend.NodeExpandVolume(ctx, backends.NodeExpandVolumeRequest{ID: e.OwnID(r.ID), Range: r.Range, Secrets: r.Secrets})
}

func (e *memEngine) Stats(ctx context.Context, r mounter.StatsRequest) (*mounter.Stats, error) {
	if err := e.at(r.Path, r.ID); err != nil {
		return nil, err
	}
	s, err := e.backend.VolumeStats(ctx, backends.VolumeStatsRequest{ID: e.OwnID(r.ID), Path: r.Path})
	if err != nil {
		return nil, err
	}
	return &mounter.Stats{VolumeStats: *s}, nil
}

func (e *memEngine) Release(context.Context, string) error { return nil }

func (e *memEngine) InUse(id string) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for path, p := range e.paths {
		if p.id == id {
			return path, true
		}
	}
	return "", false
}

func (e *memEngine) OwnID(id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.paths {
		if p.id == id {
			return p.own
		}
	}
	return id
}

func (e *memEngine) State(string) []byte { return nil }

// fuzzLog keeps what one call logs, and whether somebody has to look.
type fuzzLog struct {
	slog.Handler
	mu   sync.Mutex
	text bytes.Buffer
	bad  string // the first message at Error
}

func newFuzzLog() *fuzzLog {
	l := new(fuzzLog)
	l.Handler = slog.NewTextHandler(&l.text, &slog.HandlerOptions{Level: slog.LevelDebug})
	return l
}

func (l *fuzzLog) Handle(ctx context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Level >= slog.LevelError && l.bad == "" {
		l.bad = r.Message
	}
	return l.Handler.Handle(ctx, r)
}

// take gives what was logged since the last time.
func (l *fuzzLog) take(f func(text []byte, bad string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.text.Bytes(), l.bad)
	l.text.Reset()
	l.bad = ""
}

// fuzzRig is a driver of package mem with everything, and one of each object.
type fuzzRig struct {
	*directly
	backend *mem.Backend
	log     *fuzzLog
	byName  map[string]directMethod
	made    []madeBy
	ids     [][]byte // of what made makes, and may be deleted
	objects int      // made since it is new
}

// The nodes of a fuzzRig.
const fuzzNode, otherNode = "node-1", "node-2"

func newFuzzRig(t testing.TB) *fuzzRig {
	store := mem.NewStore(&mem.StoreOptions{Devices: true, Size: 1 << 61, Zones: []string{"zone-1", "zone-2"}})
	store.AddNode(otherNode, "zone-2", 0)
	b, err := mem.New(&mem.Options{Store: store, Node: fuzzNode, MaxVolumes: 6})
	if err != nil {
		t.Fatal(err)
	}
	r := &fuzzRig{backend: b, log: newFuzzLog(), byName: make(map[string]directMethod)}
	d, err := New(Config{Name: "mem.csikit.dev", Version: "v1", Traits: b.Traits(), Controller: b, Node: b}, &Options{
		NodeID: fuzzNode, Engine: &memEngine{backend: b, paths: make(map[string]memPath)}, Logger: slog.New(r.log), LogRequests: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.server.grpc.Stop() // its workers: nothing comes by it
	d.ready.Store(true)
	r.directly = callDirectly(d)
	for _, m := range r.methods {
		r.byName[m.name] = m
	}
	for _, q := range fuzzBase() {
		data, err := proto.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		r.made = append(r.made, madeBy{r.byName[rpcOf(q)], data})
	}
	for _, id := range []string{
		fuzzID("v-", "v"), fuzzID("v-", "w"), fuzzID("s-", "s"), fuzzID("s-", "s2"), fuzzID("s-", "sw"), fuzzID("g-", "g"), "csi-e",
	} {
		r.ids = append(r.ids, []byte(id))
	}
	r.base()
	if err := store.WriteAt(fuzzID("v-", "v"), []byte("data"), 5<<12); err != nil {
		t.Fatal(err)
	}
	sick := backends.Health{Status: backends.HealthDegraded, Reason: "Slow", Message: "a disk"}
	if err := store.SetHealth(fuzzID("v-", "v"), "", sick, sick); err != nil {
		t.Fatal(err)
	}
	if err := store.SetHealth(fuzzID("v-", "v"), fuzzNode, sick); err != nil {
		t.Fatal(err)
	}
	if err := store.SetStorageHealth(fuzzNode, backends.StorageHealth{Status: backends.StorageDegraded, Reason: "Path"}); err != nil {
		t.Fatal(err)
	}
	return r
}

// madeBy is a request of fuzzBase.
type madeBy struct {
	method directMethod
	data   []byte
}

// base makes what the seeds speak of, as far as it is not there. What a request
// has changed may be in the way: then it stays changed.
func (r *fuzzRig) base() {
	r.plant, r.answers = nil, nil
	for _, m := range r.made {
		_, _ = r.call(context.Background(), m.method, m.data) // TestSeeds looks
	}
	r.log.take(func([]byte, string) {})
}

// rpcOf is the RPC that a request is for.
func rpcOf(q proto.Message) string {
	name := string(q.ProtoReflect().Descriptor().Name())
	return name[:len(name)-len("Request")]
}

// fuzzBase are the requests by which the objects of a fuzzRig are made.
func fuzzBase() []proto.Message {
	v, w := fuzzID("v-", "v"), fuzzID("v-", "w")
	return []proto.Message{
		createReq("v"), createReq("w"),
		&csi.ControllerPublishVolumeRequest{VolumeId: v, NodeId: fuzzNode, VolumeCapability: mountCap()},
		&csi.ControllerPublishVolumeRequest{VolumeId: w, NodeId: fuzzNode, VolumeCapability: blockCap()},
		snapshotReq("s", v), snapshotReq("s2", v), snapshotReq("sw", w),
		groupReq("g", v, w),
		&csi.NodeStageVolumeRequest{VolumeId: v, StagingTargetPath: "/s", VolumeCapability: mountCap()},
		&csi.NodePublishVolumeRequest{VolumeId: v, StagingTargetPath: "/s", TargetPath: "/t", VolumeCapability: mountCap()},
		fuzzEphemeral(),
	}
}

func fuzzEphemeral() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId: "csi-e", TargetPath: "/e", VolumeCapability: mountCap(),
		VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "p"},
	}
}
