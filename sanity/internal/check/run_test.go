package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// plugin is a controller that can be told what to answer.
type plugin struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	mu       sync.Mutex
	volumes  map[string]bool
	onCreate func(context.Context, *csi.CreateVolumeRequest) error
	onDelete error
	onProbe  func() error
	onAttach func(n int) error
	attaches int
	context  map[string]string
}

func (p *plugin) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "p.example.com", VendorVersion: "1"}, nil
}

func (p *plugin) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (p *plugin) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	if p.onProbe != nil {
		if err := p.onProbe(); err != nil {
			return nil, err
		}
	}
	return &csi.ProbeResponse{}, nil
}

func (p *plugin) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{Type: &csi.ControllerServiceCapability_Rpc{
		Rpc: &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}}}}}, nil
}

func (p *plugin) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if p.onCreate != nil {
		if err := p.onCreate(ctx, req); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.volumes[req.GetName()] = true
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: req.GetName(), CapacityBytes: -1, VolumeContext: p.context}}, nil
}

func (p *plugin) ControllerPublishVolume(context.Context, *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attaches++
	return &csi.ControllerPublishVolumeResponse{}, p.onAttach(p.attaches)
}

func (p *plugin) ControllerUnpublishVolume(context.Context, *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	return nil, status.Error(codes.InvalidArgument, "no such node")
}

func (p *plugin) DeleteVolume(_ context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.onDelete != nil {
		return nil, p.onDelete
	}
	delete(p.volumes, req.GetVolumeId())
	return &csi.DeleteVolumeResponse{}, nil
}

type quiet struct{}

func (quiet) Begin(string) {}
func (quiet) End(Result)   {}

// try runs checks against p.
func try(t *testing.T, p *plugin, change func(*Config), checks ...Check) map[string]Result {
	t.Helper()
	got, err := attempt(t, p, change, checks...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// attempt is try that may not come to the checks.
func attempt(t *testing.T, p *plugin, change func(*Config), checks ...Check) (map[string]Result, error) {
	t.Helper()
	p.volumes = map[string]bool{}
	dir, err := os.MkdirTemp("", "c") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.WaitForHandlers(true)) // what they note is read
	csi.RegisterIdentityServer(s, p)
	csi.RegisterControllerServer(s, p)
	go func() { _ = s.Serve(lis) }()
	defer func() {
		s.Stop()
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}()
	cfg := Config{Node: "unix://" + lis.Addr().String(), Controller: "unix://" + lis.Addr().String(), Size: 1 << 30, CallTimeout: time.Minute,
		Dir: t.TempDir(), Secrets: map[string]string{"password": "s3cret-value"}, Reproduce: func(id string) string { return "again " + id }}
	if change != nil {
		change(&cfg)
	}
	results, _, err := Run(t.Context(), cfg, checks, quiet{})
	by := map[string]Result{}
	for _, r := range results {
		by[r.ID] = r
	}
	return by, err
}

// TestVerdicts: each way in which a check can end is one result, and the others go
// on.
func TestVerdicts(t *testing.T) {
	p := &plugin{}
	got := try(t, p, nil,
		Check{ID: "X/pass", Clauses: "CV-01", Run: func(t *T) { t.NewVolume() }},
		Check{ID: "X/panic", Clauses: "CV-01", Run: func(*T) { panic("of the check") }},
		Check{ID: "X/fail", Clauses: "CV-01 CV-02", Run: func(t *T) { t.NewVolume(); t.Failf("CV-02", "the secret is %s", "s3cret-value") }},
		Check{ID: "X/advice", Clauses: "CV-03", Run: func(t *T) { t.Failf("", "only a SHOULD") }},
		Check{ID: "X/fatal", Clauses: "CV-01", Run: func(t *T) { t.Fatalf("", "over"); t.Failf("CV-09", "went on") }},
		Check{ID: "X/na", Needs: "LIST_VOLUMES", Run: func(t *T) { t.Failf("", "was run") }},
		Check{ID: "X/missing", Needs: "restart", Run: func(t *T) { t.Failf("", "was run") }},
		Check{ID: "X/hang", Clauses: "CV-01", Run: func(t *T) {
			_, err := t.Send(t.Context(), &csi.ControllerGetVolumeRequest{})
			if status.Code(err) != codes.Unimplemented {
				t.Failf("", "%v", err)
			}
		}},
	)
	for id, want := range map[string]Verdict{"X/pass": Pass, "X/panic": Fail, "X/fail": Fail, "X/advice": Warn, "X/fatal": Fail, "X/na": NotApplicable, "X/missing": NotRun, "X/hang": Pass, "H-31/volumes": Fail, "H-31/status": Pass} {
		if got[id].Verdict != want {
			t.Errorf("%s is %s, want %s: %s", id, got[id].Verdict, want, got[id].Message)
		}
	}
	f := got["X/fail"]
	if len(f.Broken) != 1 || f.Broken[0] != "CV-02" || strings.Contains(f.Message, "s3cret") || len(f.Calls) == 0 || strings.Contains(f.Calls[0].Request, "s3cret") || f.Reproduce != "again X/fail" {
		t.Errorf("%+v", f)
	}
	if len(p.volumes) > 0 {
		t.Errorf("left: %v", p.volumes)
	}
}

// TestHungCall: it costs one result, and what it may have made is taken back.
func TestHungCall(t *testing.T) {
	// On a busy machine what does not hang may not be answered in so short a time.
	why := ""
	for limit := 200 * time.Millisecond; limit < time.Minute; limit *= 4 {
		if why = hungCall(t, limit); why == "" {
			return
		}
	}
	t.Error(why)
}

func hungCall(t *testing.T, limit time.Duration) (why string) {
	t.Helper()
	p := &plugin{}
	var hung atomic.Bool // calls are answered each on a goroutine of its own
	p.onCreate = func(ctx context.Context, _ *csi.CreateVolumeRequest) error {
		if hung.Swap(true) {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	got, err := attempt(t, p, func(c *Config) { c.CallTimeout = limit },
		Check{ID: "X/hang", Clauses: "CV-01", Run: func(t *T) {
			if _, err := t.Send(t.Context(), t.CreateRequest()); status.Code(err) != codes.DeadlineExceeded {
				t.Failf("", "got %v", err)
			}
		}},
		Check{ID: "X/next", Clauses: "CV-01", Run: func(t *T) { t.NewVolume() }},
	)
	if err != nil || got["X/hang"].Verdict != Pass || got["X/next"].Verdict != Pass || len(p.volumes) > 0 {
		return fmt.Sprintf("%v: %+v\n%+v\nleft: %v", err, got["X/hang"], got["X/next"], p.volumes)
	}
	return ""
}

// TestLeft: what cannot be taken back is named.
func TestLeft(t *testing.T) {
	p := &plugin{onDelete: status.Error(codes.Internal, "no")}
	got := try(t, p, nil, Check{ID: "X/a", Clauses: "CV-01", Run: func(t *T) { t.NewVolume() }})["X/a"]
	if got.Verdict != Fail || len(got.Left) == 0 || !strings.HasPrefix(got.Left[0], "volume csikit-") || len(got.Broken) != 1 || got.Broken[0] != "DV-01" {
		t.Errorf("%+v", got)
	}
}

// TestBusyDriver: one that says ABORTED and UNAVAILABLE now and then is valid.
func TestBusyDriver(t *testing.T) {
	p := &plugin{}
	var n atomic.Int64
	p.onCreate = func(context.Context, *csi.CreateVolumeRequest) error {
		n := n.Add(1)
		if n%3 != 0 {
			return status.Error([]codes.Code{codes.Aborted, codes.Unavailable}[n%2], "busy")
		}
		return status.Error(codes.InvalidArgument, "no")
	}
	got := try(t, p, nil, Check{ID: "X/a", Clauses: "CV-01", Run: func(t *T) { t.Refused("CV-01", "now", t.CreateRequest(), codes.InvalidArgument) }})["X/a"]
	if got.Verdict != Pass {
		t.Errorf("%+v", got)
	}
}

// TestSetup: what fails in the set-up of many checks is told once.
func TestSetup(t *testing.T) {
	p := &plugin{onCreate: func(context.Context, *csi.CreateVolumeRequest) error { return status.Error(codes.Internal, "broken") }}
	run := func(t *T) { t.NewVolume() }
	got := try(t, p, nil, Check{ID: "X/a", Clauses: "DV-01", Run: run}, Check{ID: "X/b", Clauses: "DV-01", Run: run})
	if got["X/a"].Verdict != Fail || got["X/b"].Verdict != NotRun || !strings.Contains(got["X/b"].Message, "X/a") {
		t.Errorf("%+v\n%+v", got["X/a"], got["X/b"])
	}
}

func TestFailFast(t *testing.T) {
	fail := func(t *T) { t.Failf("CV-01", "%v", errors.New("x")) }
	got := try(t, &plugin{}, func(c *Config) { c.FailFast = true }, Check{ID: "X/a", Run: fail}, Check{ID: "X/b", Run: fail})
	if got["X/a"].Verdict != Fail || got["X/b"].Verdict != NotRun {
		t.Errorf("%+v", got)
	}
}

func TestSelected(t *testing.T) {
	for only, want := range map[string]bool{"": true, "H": true, "H-05": true, "H-05/one": true, "H-0": false, "H-05/on": false, "csi-sanity": false} {
		var list []string
		if only != "" {
			list = []string{only}
		}
		if Selected(list, "H-05/one") != want {
			t.Errorf("%q: want %t", only, want)
		}
	}
}
