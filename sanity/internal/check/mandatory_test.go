package check

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// without is a plugin that lacks some of what it must have.
type without struct {
	plugin
	probe, controller bool
}

func (w *without) Probe(ctx context.Context, req *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	if w.probe {
		return w.plugin.Probe(ctx, req)
	}
	return nil, status.Error(codes.Unimplemented, "")
}

func (w *without) ControllerGetCapabilities(ctx context.Context, req *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	if w.controller {
		return w.plugin.ControllerGetCapabilities(ctx, req)
	}
	return nil, status.Error(codes.Unimplemented, "")
}

func (w *without) ValidateVolumeCapabilities(context.Context, *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return nil, status.Error(codes.InvalidArgument, "volume_id is missing")
}

// TestLacksMandatory: what is missing is named; that the plugin has no Node service is
// nothing that is missing.
func TestLacksMandatory(t *testing.T) {
	for _, c := range []struct {
		w    *without
		want []string
	}{
		{&without{probe: true, controller: true}, nil},
		{&without{controller: true}, []string{"Probe"}},
		{&without{}, []string{"Probe", "ControllerGetCapabilities"}},
	} {
		cfg := &Config{CallTimeout: time.Minute, Only: []string{"X/a"}, Reproduce: func(id string) string { return "again " + id }}
		cfg.Controller = listen(t, c.w)
		cfg.Node = cfg.Controller
		lacks, err := LacksMandatory(t.Context(), cfg)
		var got []string
		for _, m := range lacks {
			got = append(got, m.Method)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("lacks %q, want %q: %v", got, c.want, err)
		}
		if len(lacks) == 0 {
			continue
		}
		all := Without(lacks, cfg, []Check{{ID: MandatoryID, Clauses: "ID-14"}, {ID: "X/a"}, {ID: "X/b"}}, quiet{})
		if len(all) != 2 || all[0].Verdict != Fail || !slices.Contains(all[0].Broken, "ID-14") || all[1].Verdict != NotRun || all[1].ID != "X/a" {
			t.Errorf("%+v", all)
		}
	}
}

// listen serves a controller, and says where.
func listen(t *testing.T, w *without) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	csi.RegisterIdentityServer(s, w)
	csi.RegisterControllerServer(s, w)
	go func() { _ = s.Serve(lis) }() // until Stop
	t.Cleanup(func() {
		s.Stop()
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return "unix://" + lis.Addr().String()
}
