package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/driverproc"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// junk is the codec of a driver that answers bytes which are no message.
type junk struct{ sane func(any) bool }

func (junk) Name() string { return "proto" }

func (j junk) Marshal(v any) (mem.BufferSlice, error) {
	b := make([]byte, 64)
	_, _ = rand.Read(b) // never fails
	if m, ok := v.(proto.Message); ok && j.sane(v) {
		var err error
		if b, err = proto.Marshal(m); err != nil {
			return nil, err
		}
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (junk) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

// odd is a driver that says it can do everything, and answers nothing of use.
type odd struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
}

func (odd) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (odd) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "odd\x1b[2J"}, nil
}

func (odd) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{}, {Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}}}}, nil
}

func (odd) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	r := &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{}}}
	for c := range csi.ControllerServiceCapability_RPC_Type_name {
		r.Capabilities = append(r.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_Type(c)}}})
	}
	return r, nil
}

func (odd) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{}}}, nil
}

func (odd) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{}, nil
}

// serveOdd gives the endpoint of a server of odd.
func serveOdd(t *testing.T, o ...grpc.ServerOption) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csikit-") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(o...)
	csi.RegisterIdentityServer(s, odd{})
	csi.RegisterControllerServer(s, odd{})
	csi.RegisterNodeServer(s, odd{})
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(func() {
		s.Stop()
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return "unix://" + dir + "/s"
}

// each answers a unary call of anything but sane methods.
func each(sane []string, answer func(ctx context.Context) error) grpc.ServerOption {
	return grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		for _, m := range sane {
			if path.Base(info.FullMethod) == m {
				return h(ctx, req)
			}
		}
		return nil, answer(ctx)
	})
}

// TestHostile: whatever answers at an endpoint, both commands end soon, say what
// is wrong, and write reports that can be read.
func TestHostile(t *testing.T) {
	bin := build(t)
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(web) }()
	defer server.Close()
	identity := []string{"Probe", "GetPluginInfo", "GetPluginCapabilities", "ControllerGetCapabilities", "NodeGetCapabilities", "NodeGetInfo"}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	escape := func(context.Context) error { return status.Error(codes.Internal, "\x1b[2J\xff ]]> <a>") }
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		endpoint, want string
	}{
		"nobody":          {"unix://" + t.TempDir() + "/s", "no such file"},
		"a file":          {"unix://" + file, "connection refused"},
		"a web server":    {"tcp://" + web.Addr().String(), "probe: "},
		"junk":            {serveOdd(t, grpc.ForceServerCodecV2(junk{func(any) bool { return false }})), "unmarshal"},
		"junk later":      {serveOdd(t, grpc.ForceServerCodecV2(junk{isProbe})), "unmarshal"},
		"silence":         {serveOdd(t, each(nil, silent)), "Deadline"},
		"silence later":   {serveOdd(t, each([]string{"Probe"}, silent)), "Deadline"},
		"nothing in it":   {serveOdd(t), "CreateVolume"},
		"escapes and XML": {serveOdd(t, each(identity, escape)), "]]> <a>"},
	} {
		t.Run(name, func(t *testing.T) {
			j, _, out, code := checkFiles(t, bin, "-endpoint", c.endpoint, "-timeout", "3s")
			if code == 0 || j.OK() || j.Endpoint != c.endpoint || !strings.Contains(out, c.want) || strings.Contains(out, "\x1b") {
				t.Errorf("check: exit code %d, %v, want %q", code, j.Counts, c.want)
			}
			out, code = runDemo(t, exec.CommandContext(t.Context(), bin, "walk", "-endpoint", c.endpoint, "-timeout", "1s"))
			if code != 1 || !strings.Contains(out, c.want) || strings.Contains(out, "\x1b") {
				t.Errorf("walk: exit code %d, want %q", code, c.want)
			}
		})
	}
}

func isProbe(v any) bool { _, ok := v.(*csi.ProbeResponse); return ok }

// TestDriverKilled: in the middle of a check, and of a walk. What is left is
// named.
func TestDriverKilled(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.xfs")
	bin := build(t)
	for command, line := range map[string]string{"check": "ok ", "walk": "NodePublishVolume"} {
		t.Run(command, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "csikit-") //nolint:usetesting // a short path, for the socket
			if err != nil {
				t.Fatal(err)
			}
			w := workspace{dir: dir}
			t.Cleanup(func() { tearDown(t, w) })
			for _, d := range []string{w.pool(), w.state(), w.pods()} {
				if err := os.Mkdir(d, 0o750); err != nil {
					t.Fatal(err)
				}
			}
			p := &driverproc.Process{Argv: []string{bin, driverCommand, "-dir", dir}, Socket: w.socket(), Log: w.log()}
			if err := p.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			out, code := killAt(t, p, line, exec.CommandContext(t.Context(), bin, command, "-endpoint", "unix://"+w.socket(), "-timeout", "20s", "-dir", w.pods()))
			want := map[string]string{"check": "does not answer any more", "walk": "left behind: "}[command]
			if code != 1 || !strings.Contains(out, want) {
				t.Errorf("exit code %d, want %q", code, want)
			}
		})
	}
}

// killAt kills the driver when the command prints a line, and gives all that it
// prints.
func killAt(t *testing.T, p *driverproc.Process, line string, cmd *exec.Cmd) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the command has its own
	var out strings.Builder
	killed := false
	for lines := bufio.NewScanner(r); lines.Scan(); {
		out.WriteString(lines.Text() + "\n")
		if !killed && strings.HasPrefix(lines.Text(), line) {
			killed = true
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // the caller looks at its exit code
	t.Logf("%s", out.String())
	return out.String(), cmd.ProcessState.ExitCode()
}

// tearDown does what the CO and the driver would have done.
func tearDown(t *testing.T, w workspace) {
	t.Helper()
	left, err := countLeft(w)
	if err != nil {
		t.Error(err)
	}
	for _, m := range left.mounts {
		if _, err := mnt.Unwind(m); err != nil {
			t.Error(err)
		}
	}
	for _, l := range left.loops {
		device, file, _ := strings.Cut(l, " on ")
		var st syscall.Stat_t
		if err := syscall.Stat(file, &st); err != nil {
			t.Error(err)
		}
		if err := blockdev.DetachLoop(context.WithoutCancel(t.Context()), device, uint64(st.Dev), st.Ino); err != nil { //nolint:unconvert // int32 on darwin
			t.Error(err)
		}
	}
	if err := removeWorkspace(w.dir); err != nil {
		t.Error(err)
	}
}
