package walk

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	attachCap = csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME
	expandCap = csi.ControllerServiceCapability_RPC_EXPAND_VOLUME
	listCap   = csi.ControllerServiceCapability_RPC_LIST_VOLUMES
	multiCap  = csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER

	stageNode  = csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME
	expandNode = csi.NodeServiceCapability_RPC_EXPAND_VOLUME
	statsNode  = csi.NodeServiceCapability_RPC_GET_VOLUME_STATS
	multiNode  = csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER
)

func everything() *fake {
	return &fake{
		expansion:  []csi.PluginCapability_VolumeExpansion_Type{csi.PluginCapability_VolumeExpansion_ONLINE},
		controller: append([]csi.ControllerServiceCapability_RPC_Type{attachCap, expandCap, listCap, multiCap}, basic...),
		node:       []csi.NodeServiceCapability_RPC_Type{stageNode, expandNode, statsNode, multiNode},
	}
}

// run walks f and gives what was printed.
func run(t *testing.T, f *fake, change func(*Options)) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	o := Options{Controller: f.start(t), Out: &b, Name: "vol", Dir: t.TempDir(), Size: 1 << 30, NoData: true, pause: time.Microsecond}
	if change != nil {
		change(&o)
	}
	err = Run(t.Context(), o)
	t.Logf("%s", b.String())
	if left, derr := os.ReadDir(o.Dir); derr != nil || len(left) > 0 {
		t.Errorf("left below the directory: %v, %v", left, derr)
	}
	return b.String(), err
}

// rpcs are the calls of f but those that ask what it can do.
func (f *fake) rpcs() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	short := strings.NewReplacer("Controller", "C", "Volume", "", "Node", "N", "Capabilities", "")
	var names []string
	for _, c := range f.calls {
		if !strings.HasSuffix(c, "GetCapabilities") && !strings.HasPrefix(c, "GetPlugin") && c != "NodeGetInfo" {
			names = append(names, short.Replace(c))
		}
	}
	return strings.Join(names, " ")
}

// TestByCapabilities: each driver is asked for what it has, in a CO's order.
func TestByCapabilities(t *testing.T) {
	offline := everything()
	offline.expansion = []csi.PluginCapability_VolumeExpansion_Type{csi.PluginCapability_VolumeExpansion_OFFLINE}
	for name, c := range map[string]struct {
		f    *fake
		size int64
		want string
	}{
		"least": {new(fake), 1 << 30, "Create Create Validate NPublish NPublish NUnpublish NPublish NUnpublish NPublish NUnpublish Delete"},
		"all": {everything(), 1 << 30, "Create Create Validate Lists Lists CPublish CPublish NStage NPublish NPublish NPublish NPublish CExpand NExpand " +
			"NGetStats NUnpublish NUnpublish NUnpublish NUnstage CUnpublish CPublish CPublish NStage NPublish NUnpublish NPublish NUnpublish NUnstage CUnpublish Delete Lists Lists"},
		"offline": {offline, 1 << 30, "Create Create Validate Lists Lists CPublish CPublish NStage NPublish NPublish NPublish NPublish " +
			"NGetStats NUnpublish NUnpublish NUnpublish NUnstage CUnpublish CExpand CPublish CPublish NStage NPublish NUnpublish NPublish NExpand NUnpublish NUnstage CUnpublish Delete Lists Lists"},
		"no size": {everything(), 0, "Create Create Validate Lists Lists CPublish CPublish NStage NPublish NPublish NPublish NPublish " +
			"NGetStats NUnpublish NUnpublish NUnpublish NUnstage CUnpublish CPublish CPublish NStage NPublish NUnpublish NPublish NUnpublish NUnstage CUnpublish Delete Lists Lists"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := run(t, c.f, func(o *Options) { o.Size = c.size }); err != nil {
				t.Error(err)
			}
			if got := c.f.rpcs(); got != c.want {
				t.Errorf("calls\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestTakesBack fails each RPC in turn after it has done its work, with a code
// that is final: nothing is left in the driver.
func TestTakesBack(t *testing.T) {
	for _, method := range []string{
		"ValidateVolumeCapabilities", "ListVolumes", "ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume",
		"ControllerExpandVolume", "NodeExpandVolume", "NodeGetVolumeStats", "NodeUnpublishVolume", "NodeUnstageVolume", "ControllerUnpublishVolume",
		"DeleteVolume",
	} {
		t.Run(method, func(t *testing.T) {
			f := everything()
			f.fail = func(m string, n int) error {
				if m == method && n == 1 {
					return status.Error(codes.Internal, "planted")
				}
				return nil
			}
			_, err := run(t, f, nil)
			if err == nil || !strings.Contains(err.Error(), method+": Internal: planted") {
				t.Errorf("walk: %v", err)
			}
			if strings.Contains(err.Error(), "left behind") || len(f.volumes)+len(f.places) > 0 {
				t.Errorf("left: %v, volumes %v, places %v", err, f.volumes, f.places)
			}
		})
	}
}

// TestDoubt: the answer to CreateVolume is lost for good, and the volume is
// found and deleted all the same.
func TestDoubt(t *testing.T) {
	f := everything()
	f.fail = func(m string, n int) error {
		if m == "CreateVolume" && n <= attempts {
			return status.Error(codes.Unavailable, "planted")
		}
		return nil
	}
	out, err := run(t, f, nil)
	if err == nil || len(f.volumes) > 0 || !strings.Contains(out, "is there one?") {
		t.Errorf("%v, volumes %v", err, f.volumes)
	}
}

// TestSecondVolume: a driver that is not idempotent leaves none of its volumes.
func TestSecondVolume(t *testing.T) {
	f := everything()
	f.twice = true
	_, err := run(t, f, nil)
	if err == nil || !strings.Contains(err.Error(), "another volume, vol-again") || len(f.volumes) > 0 {
		t.Errorf("%v, volumes %v", err, f.volumes)
	}
}

// TestLeftBehind: what cannot be taken back ends the clean-up and is named;
// nothing is deleted that may be in use.
func TestLeftBehind(t *testing.T) {
	f := everything()
	f.fail = func(m string, _ int) error {
		if m == "NodeUnstageVolume" {
			return status.Error(codes.Internal, "busy")
		}
		return nil
	}
	_, err := run(t, f, nil)
	for _, want := range []string{"busy", "left behind: staged at ", "attached to node node-1", "volume vol"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if strings.Contains(f.rpcs(), "Delete") || strings.Contains(f.rpcs(), "CUnpublish") {
		t.Errorf("calls: %s", f.rpcs())
	}
}

// TestInterrupted: Ctrl-C takes back too.
func TestInterrupted(t *testing.T) {
	f := everything()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.fail = func(m string, n int) error {
		if m == "NodePublishVolume" && n == 2 {
			cancel()
		}
		return nil
	}
	dir := t.TempDir()
	err := Run(ctx, Options{Controller: f.start(t), Out: t.Output(), Name: "vol", Dir: dir, Size: 1 << 30, NoData: true})
	if err == nil || !strings.Contains(err.Error(), "interrupted: ") || len(f.volumes)+len(f.places) > 0 {
		t.Errorf("%v, volumes %v, places %v", err, f.volumes, f.places)
	}
}

// TestRetries: a code that asks for it is no failure.
func TestRetries(t *testing.T) {
	f := everything()
	f.fail = func(m string, n int) error {
		if m == "NodeStageVolume" && n == 1 {
			return status.Error(codes.Aborted, "pending")
		}
		return nil
	}
	if out, err := run(t, f, nil); err != nil || !strings.Contains(out, "Aborted: pending") {
		t.Error(err)
	}
}

// TestNothingMounted: a driver of this host that answers OK and mounts nothing.
func TestNothingMounted(t *testing.T) {
	for _, block := range []bool{false, true} {
		_, err := run(t, everything(), func(o *Options) { o.NoData, o.SameHost, o.Block = false, true, block })
		if err == nil || !strings.Contains(err.Error(), "there is no volume at") {
			t.Errorf("block=%t: %v", block, err)
		}
		out, err := run(t, everything(), func(o *Options) { o.NoData, o.Block = false, block })
		if err != nil || !strings.Contains(out, "not to be seen here") {
			t.Errorf("elsewhere, block=%t: %v", block, err)
		}
	}
}

// TestOnly: one subject that the driver does not have is named all the same.
func TestOnly(t *testing.T) {
	f := everything()
	out, err := run(t, f, func(o *Options) { o.Only = []string{"clone"} })
	if err != nil || !strings.Contains(out, "clone       not advertised: CLONE_VOLUME") || f.rpcs() != "" {
		t.Errorf("%v, calls %s", err, f.rpcs())
	}
}

// TestCannot: what cannot be walked is said at once.
func TestCannot(t *testing.T) {
	f := everything()
	f.controller = []csi.ControllerServiceCapability_RPC_Type{listCap}
	if _, err := run(t, f, nil); err == nil || !strings.Contains(err.Error(), "creates no volumes") || f.rpcs() != "" {
		t.Errorf("%v, calls %s", err, f.rpcs())
	}
	gone := everything()
	conn := gone.start(t)
	_ = conn.Close()
	err := Run(t.Context(), Options{Controller: conn, Out: t.Output(), Name: "vol", Dir: t.TempDir(), Timeout: time.Second})
	if err == nil {
		t.Error("no driver, no error")
	}
}
