package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const canary = "CANARY-5f3a"

// TestCanary sends secrets wherever CSI has room for them, to calls that work
// and to calls that fail: they are in no log, answer, record or command line.
func TestCanary(t *testing.T) {
	shim := newShim(t, "ext4")
	d := newDriver(t, "PATH="+shim.dir+":"+os.Getenv("PATH"))
	secrets := map[string]string{"password": canary, "key": canary + "\nline 2"}
	tokens := map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": `{"aud":{"token":"` + canary + `"}}`}
	ctx := t.Context()
	var said []string
	say := func(err error) {
		if err != nil {
			said = append(said, status.Convert(err).Message())
		}
	}
	v := d.newVolume("canary", "ext4")
	resp, err := d.controller().CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: v.name, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: []*csi.VolumeCapability{v.cap}, Secrets: secrets,
	})
	if err != nil {
		t.Fatal(err)
	}
	v.id, v.context = resp.GetVolume().GetVolumeId(), resp.GetVolume().GetVolumeContext()
	said = append(said, resp.String())
	if err := os.MkdirAll(v.staging, 0o750); err != nil {
		t.Fatal(err)
	}
	bad := capability("ext4", v.cap.GetAccessMode().GetMode())
	bad.GetMount().MountFlags = []string{"password=" + canary}
	stage := &csi.NodeStageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging, VolumeCapability: bad, Secrets: secrets, VolumeContext: tokens}
	_, err = d.node().NodeStageVolume(ctx, stage)
	if status.Code(err) == codes.OK {
		t.Error("a mount option that ext4 does not know was accepted")
	}
	say(err)
	stage.VolumeCapability, stage.VolumeContext = v.cap, v.context
	_, err = d.node().NodeStageVolume(ctx, stage)
	if err != nil {
		t.Fatal(err)
	}
	publish := &csi.NodePublishVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging, TargetPath: v.target, VolumeCapability: v.cap, Secrets: secrets, VolumeContext: tokens}
	must(t, v.publish, "publish")
	_, err = d.node().NodePublishVolume(ctx, publish)
	if err != nil {
		t.Errorf("publish, repeated with tokens and secrets: %v", err)
	}
	publish.StagingTargetPath, publish.TargetPath = d.path("nothing"), d.path("pods/other")
	_, err = d.node().NodePublishVolume(ctx, publish)
	say(err)
	must(t, v.unpublish, "unpublish")
	must(t, v.unstage, "unstage")
	_, err = d.controller().DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.id, Secrets: secrets})
	if err != nil {
		t.Error(err)
	}
	for _, s := range said {
		if strings.Contains(s, canary) {
			t.Errorf("an answer holds a secret: %s", s)
		}
	}
	if n := shim.runs(t); n == 0 {
		t.Error("mkfs did not run: its command line was not looked at")
	}
	for _, dir := range []string{d.dir, shim.dir} {
		noCanary(t, dir)
	}
}

// noCanary looks for the canary in each file of dir: log, records, pool.
func noCanary(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if info, err := e.Info(); err != nil || info.Size() > 16<<20 {
			return err // a volume's image
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), canary) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
