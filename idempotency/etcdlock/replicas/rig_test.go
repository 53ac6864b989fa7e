package replicas

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/idempotency/etcdlock"
	"github.com/csikit/csikit/idempotency/etcdlock/internal/etcdtest"
)

// TTL of the replicas' leases: short ones are lost after 4 s and somebody else's
// after 6, the others not while a test runs, however busy the machine is.
const (
	short = 6 * time.Second
	long  = 2 * time.Minute
)

// rig is replicas over one etcd and one storage.
type rig struct {
	*etcdtest.Etcd
	t       *testing.T
	storage *storage
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{etcdtest.Start(t), t, newStorage(t)}
}

// controller is a client of one replica.
type controller struct {
	csi.ControllerClient
	t    *testing.T
	net  *etcdtest.Proxy // between it and etcd
	mine *backend
}

// replica starts one.
func (r *rig) replica(name string, ttl time.Duration) *controller {
	r.t.Helper()
	net := etcdtest.NewProxy(r.t, r.Address)
	locker := etcdlock.New(r.Dial(net.Address), &etcdlock.Options{Prefix: "/replicas/", TTL: ttl})
	r.t.Cleanup(func() { _ = locker.Close() })
	m, err := mem.New(&mem.Options{Store: r.storage.store})
	if err != nil {
		r.t.Fatal(err)
	}
	b := &backend{Backend: m, s: r.storage, name: name}
	d, err := csidriver.New(csidriver.Config{
		Name: "replicas.csikit.dev", Version: "v1", Traits: b.Traits(), Controller: b, Node: b, Serve: csidriver.ServeController,
	}, &csidriver.Options{Locker: locker, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Drain: time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	conn := r.serve(d)
	return &controller{csi.NewControllerClient(conn), r.t, net, b}
}

// serve serves until the test ends. The path of a socket has to be short.
func (r *rig) serve(d *csidriver.Driver) *grpc.ClientConn {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "c") //nolint:usetesting // that of the test is too long for a socket
	if err != nil {
		r.t.Fatal(err)
	}
	endpoint := "unix://" + filepath.Join(dir, "csi.sock")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = d.Run(ctx, endpoint); close(ended) }() // what is cut off at the end is no matter
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close(); stop(); <-ended; _ = os.RemoveAll(dir) })
	for {
		resp, err := csi.NewIdentityClient(conn).Probe(r.t.Context(), &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err != nil {
			r.t.Fatal(err)
		}
		if resp.GetReady().GetValue() {
			return conn
		}
	}
}

func createReq(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		}},
	}
}

// notFinal are the codes after which a CO knows that it has to come again.
var notFinal = []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted}

func final(err error) bool { return !slices.Contains(notFinal, status.Code(err)) }

// create creates a volume as a CO does: until it has an answer.
func (c *controller) create(name string) string {
	c.t.Helper()
	var id string
	c.retry(func(ctx context.Context) error {
		v, err := c.CreateVolume(ctx, createReq(name))
		id = v.GetVolume().GetVolumeId()
		return err
	}, codes.OK)
	return id
}

func (c *controller) remove(id string) {
	c.t.Helper()
	c.retry(func(ctx context.Context) error {
		_, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
		return err
	}, codes.OK)
}

// retry calls until the code is final, which must be one of want.
func (c *controller) retry(call func(context.Context) error, want ...codes.Code) {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond) {
		ctx, cancel := context.WithTimeout(c.t.Context(), 15*time.Second)
		err := call(ctx)
		cancel()
		if final(err) {
			if !slices.Contains(want, status.Code(err)) {
				c.t.Errorf("%v; want %v", err, want)
			}
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("no final answer: %v", err)
			return
		}
	}
}

// volumes are the IDs of all that there are.
func (c *controller) volumes() (ids []string) {
	c.t.Helper()
	all, err := c.ListVolumes(c.t.Context(), &csi.ListVolumesRequest{})
	if err != nil {
		c.t.Error(err)
	}
	for _, e := range all.GetEntries() {
		ids = append(ids, e.GetVolume().GetVolumeId())
	}
	return ids
}

// all runs f for each, side by side.
func all[T any](of []T, f func(int, T)) {
	var wg sync.WaitGroup
	for i, v := range of {
		wg.Go(func() { f(i, v) })
	}
	wg.Wait()
}
