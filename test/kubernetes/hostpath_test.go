package kubernetes

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const hostPathImage = "docker.io/csikit/hostpath:test"

// deployHostPath deploys csi-driver-host-path by what csikit manifests makes of what
// it says of itself: a driver that does not know csikit. Its class is timing-hostpath.
func deployHostPath(t *testing.T) {
	t.Helper()
	plugin := filepath.Join(binaries(), "hostpathplugin")
	if out, err := script("images.sh", "driver", plugin, hostPathImage); err != nil {
		t.Fatalf("images.sh: %v\n%s", err, out)
	}
	yaml := hostPathManifests(t, plugin)
	apply(t, yaml)
	t.Cleanup(func() {
		if _, err := try(yaml, "delete", "--ignore-not-found", "--timeout=120s", "-f", "-"); err != nil {
			t.Error(err)
		}
	})
	apply(t, `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: timing-hostpath}
provisioner: hostpath.csi.k8s.io
`)
	t.Cleanup(func() { kubectl(t, "delete", "sc", "timing-hostpath") })
	is(t, "1", "{.status.numberReady}", "-n", "kube-system", "daemonset", "hostpath-csi-k8s-io-node")
	eventually(t, "kubelet registers host-path", func() error {
		out, err := try("", "get", "csinode", "csi-node", "-o", "jsonpath={.spec.drivers[*].name}")
		if err == nil && !strings.Contains(out, "hostpath.csi.k8s.io") {
			err = errors.New("CSINode has " + out)
		}
		return err
	})
}

func hostPathManifests(t *testing.T, plugin string) string {
	t.Helper()
	dir := t.TempDir()
	var log, out, said bytes.Buffer
	cmd := exec.Command(plugin, "--endpoint", "unix://"+filepath.Join(dir, "s"), "--nodeid", "x", "--statedir", filepath.Join(dir, "state"), "--enable-attach")
	cmd.Stderr = &log
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "state"), 0o700), cmd.Start()); err != nil {
		t.Fatal(err)
	}
	ask := exec.Command(binary(t, "cmd/csikit"), "manifests", "-endpoint", "unix://"+filepath.Join(dir, "s"), "-image", hostPathImage, "-plain", "-registrar", "-single-node",
		"-host-path", "/srv", "--", "--drivername=hostpath.csi.k8s.io", "--endpoint=$(CSI_ENDPOINT)", "--nodeid=$(NODE_NAME)", "--statedir=/srv/hostpath", "--enable-attach")
	ask.Stdout, ask.Stderr = &out, &said
	err := ask.Run()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait() // it was told to stop
	if err != nil {
		t.Fatalf("%v: %v\n%s\n%s", ask.Args, err, &said, &log)
	}
	return out.String()
}
