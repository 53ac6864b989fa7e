package csidriver

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/csikit/csikit/csidriver/internal/kubeletpb"
)

// kubelet is kubelet's side of a registration.
type kubelet struct {
	dir string
}

func newKubelet(t *testing.T) *kubelet {
	t.Helper()
	dir, err := os.MkdirTemp("", "k") //nolint:usetesting // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &kubelet{dir}
}

func (k *kubelet) socket() string { return filepath.Join(k.dir, "memory.csikit.dev-reg.sock") }

// sees waits until a socket appears, as kubelet's watch does.
func (k *kubelet) sees(t *testing.T) fs.FileInfo {
	t.Helper()
	for {
		fi, err := os.Lstat(k.socket())
		if err == nil && fi.Mode().Type() == fs.ModeSocket {
			return fi
		}
		if t.Context().Err() != nil {
			t.Fatalf("no socket: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// register does what kubelet does: GetInfo, NodeGetInfo at the endpoint, and the
// verdict.
func (k *kubelet) register(t *testing.T, verdict *kubeletpb.RegistrationStatus) *kubeletpb.PluginInfo {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+k.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(kubeletpb.Codec{}), grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a client's
	info := new(kubeletpb.PluginInfo)
	if err := conn.Invoke(t.Context(), kubeletpb.GetInfo, &kubeletpb.InfoRequest{}, info); err != nil {
		t.Fatal(err)
	}
	driver := csi.NewNodeClient(connect(t, "unix://"+info.Endpoint, insecure.NewCredentials()))
	if resp, err := driver.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{}); err != nil || resp.GetNodeId() != "node-1" {
		t.Errorf("NodeGetInfo: %v, %v", resp, err)
	}
	if err := conn.Invoke(t.Context(), kubeletpb.NotifyStatus, verdict, new(kubeletpb.RegistrationStatusResponse)); err != nil {
		t.Error(err)
	}
	return info
}

// wait waits for a line with these words.
func (l *logBuffer) wait(t *testing.T, words string) {
	t.Helper()
	for !strings.Contains(l.String(), words) {
		if t.Context().Err() != nil {
			t.Fatalf("the log has no %q", words)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func registering(k *kubelet) func(*setup) {
	return func(s *setup) { s.opts.KubeletRegistry = k.dir }
}

// TestRegistration: kubelet finds the driver before its recovery is done, hears
// name, endpoint and version, and the log has the verdict.
func TestRegistration(t *testing.T) {
	k, release := newKubelet(t), make(chan struct{})
	r := newRig(t, func(s *setup) {
		registering(k)(s)
		s.engine.hook = func(_ context.Context, method string) error {
			if method == "Start" {
				<-release
			}
			return nil
		}
	})
	fi := k.sees(t)
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v", fi.Mode())
	}
	info := k.register(t, &kubeletpb.RegistrationStatus{PluginRegistered: true})
	close(release)
	if info.Type != "CSIPlugin" || info.Name != "memory.csikit.dev" || !strings.HasSuffix(info.Endpoint, "/csi.sock") ||
		len(info.SupportedVersions) != 1 || info.SupportedVersions[0] != "1.0.0" {
		t.Errorf("%+v", info)
	}
	k.register(t, &kubeletpb.RegistrationStatus{Error: "topology label has another value"})
	r.ready(t)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"registered with kubelet", "kubelet does not register the driver", "topology label has another value"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log has no %q", want)
		}
	}
	if left, err := os.ReadDir(k.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRegistrationAgain: a socket that was removed, replaced by something dead, or
// whose directory is not there yet, is made again.
func TestRegistrationAgain(t *testing.T) {
	k := newKubelet(t)
	if err := os.Remove(k.dir); err != nil {
		t.Fatal(err)
	}
	r := startRig(t, registering(k))
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k.sees(t)
	if err := os.Remove(k.socket()); err != nil {
		t.Fatal(err)
	}
	k.register(t, &kubeletpb.RegistrationStatus{PluginRegistered: true}) // waits for it
	// In its place at once: the driver looks, too, and may make another one first.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: k.socket() + ".dead", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(k.socket()+".dead", k.socket()); err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	for { // one that answers, whatever its inode number
		conn, err := net.Dial("unix", k.socket())
		if err == nil {
			_ = conn.Close()
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	k.register(t, &kubeletpb.RegistrationStatus{PluginRegistered: true})
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

// TestRegistrationOfAnother: a registrar's socket that is served is left alone, also
// at the end, and taken over when it has gone.
func TestRegistrationOfAnother(t *testing.T) {
	k := newKubelet(t)
	other, err := Listen(k.socket(), 0)
	if err != nil {
		t.Fatal(err)
	}
	born := k.sees(t)
	r := newHealthRig(t, registering(k))
	r.ready(t)
	r.log.wait(t, "cannot register with kubelet")
	r.want(t, "/readyz", 503, "another driver serves here")
	if fi, err := os.Lstat(k.socket()); err != nil || !os.SameFile(fi, born) {
		t.Errorf("the other's socket: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	k.sees(t)
	k.register(t, &kubeletpb.RegistrationStatus{PluginRegistered: true})
}

// TestRegistrationEndpoint: in a container kubelet's name of the socket is another.
func TestRegistrationEndpoint(t *testing.T) {
	k := newKubelet(t)
	path := filepath.Join(t.TempDir(), "host.sock")
	r := startRig(t, func(s *setup) { registering(k)(s); s.opts.KubeletEndpoint = path })
	d := r.driver
	reg, err := newRegistration(d, listening(t))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := reg.GetInfo(t.Context(), nil); err != nil || info.Endpoint != path {
		t.Errorf("%+v, %v", info, err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newRegistration(d, tcp); err == nil {
		t.Error("kubelet cannot call a TCP endpoint")
	}
	if err := tcp.Close(); err != nil {
		t.Error(err)
	}
}

// listening is a Unix listener of a test's own.
func listening(t *testing.T) net.Listener {
	t.Helper()
	lis, err := Listen(filepath.Join(t.TempDir(), "x.sock"), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	return lis
}

func TestRegistrationRefused(t *testing.T) {
	b := newMemory()
	cfg := Config{Name: "memory.csikit.dev", Traits: memoryTraits(), Controller: b, Node: b, Serve: ServeController}
	_, err := New(cfg, &Options{KubeletRegistry: "registry", KubeletEndpoint: "csi.sock"})
	for _, want := range []string{"KubeletEndpoint \"csi.sock\" is no absolute path", "KubeletRegistry \"registry\" is no absolute path", "Node is not served here"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := New(cfg, &Options{KubeletEndpoint: "/csi.sock"}); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("KubeletEndpoint without KubeletRegistry: %v", err)
	}
	// kubelet connects by these paths, and a socket's address ends after 107 bytes.
	cfg.Serve = ServeNode
	_, err = New(cfg, &Options{KubeletRegistry: "/" + strings.Repeat("r", 80), KubeletEndpoint: "/" + strings.Repeat("e", 107), NodeID: "n", Engine: newFakeEngine()})
	for _, want := range []string{"KubeletEndpoint", "KubeletRegistry"} {
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "108 bytes, kubelet connects to 107 at most") {
			t.Errorf("%s: %v", want, err)
		}
	}
	d, err := New(cfg, &Options{KubeletRegistry: "/r", NodeID: "n", Engine: newFakeEngine()})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 107))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lis, err := Listen(filepath.Join(dir, "csi.sock"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Serve(t.Context(), lis); err == nil || !strings.Contains(err.Error(), "KubeletEndpoint") {
		t.Errorf("a listener that kubelet cannot connect to: %v", err)
	}
}

// TestRegistrationReady: a driver that kubelet does not know is not ready, and says
// what kubelet said.
func TestRegistrationReady(t *testing.T) {
	k := newKubelet(t)
	r := newHealthRig(t, registering(k))
	r.ready(t)
	k.sees(t)
	r.want(t, "/readyz", 503, "kubelet has not registered the driver yet")
	k.register(t, &kubeletpb.RegistrationStatus{Error: "topology label has another value"})
	r.want(t, "/readyz", 503, "topology label has another value")
	r.want(t, "/healthz", 200, "ok")
	k.register(t, &kubeletpb.RegistrationStatus{PluginRegistered: true})
	r.want(t, "/readyz", 200, "ok")
	if err := os.Remove(k.socket()); err != nil {
		t.Fatal(err)
	}
	k.sees(t) // another one: kubelet has forgotten the driver with the first
	r.want(t, "/readyz", 503, "not registered the driver yet")
}
