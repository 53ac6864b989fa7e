package kubernetes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The driver as it is deployed.
const (
	driverName  = "loopfile.csikit.dev"
	driverBase  = "loopfile-csikit-dev"
	driverImage = "docker.io/csikit/loopfile:test"
	pool        = "/srv/volumes"
)

// variant is a way to deploy the example.
type variant struct {
	name   string
	flags  []string // of csikit manifests
	args   []string // of the driver
	attach bool
	// with external-snapshot-metadata, where it is built
	metadata bool
	local    bool              // each node's sidecars serve its own volumes
	edit     *strings.Replacer // of the manifests; nil: none
}

var variants = []variant{
	{
		// attachRequired, the driver registers by itself, sidecars for all.
		name: "loopfile, attach", attach: true, metadata: true,
		flags: []string{"-single-node", "-mutable-parameters", "read-bps=max"},
		args:  []string{"-attach", "-io-cgroup=/sys/fs/cgroup/pods", "-ephemeral-max=1073741824", "-thin", "-init-pool"},
	},
	{
		// Distributed provisioning, no attaching, node-driver-registrar and livenessprobe.
		name: "loopfile, distributed, registrar", local: true,
		flags: []string{"-registrar"},
		args:  []string{"-thin", "-init-pool", "-ephemeral-max=1073741824"},
	},
}

// deployed is a driver in the cluster.
type deployed struct {
	variant
	manifests string
}

// build makes the driver, csikit, and the driver's image; once.
func build(t *testing.T) (driver, csikit string) {
	t.Helper()
	dir := filepath.Join(work(), "bin")
	for name, pkg := range map[string]string{"loopfile": "./examples/loopfile", "csikit": "./cmd/csikit"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			continue
		}
		cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", filepath.Join(dir, name), pkg)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		if name == "loopfile" {
			if out, err := script("images.sh", "driver", filepath.Join(dir, name), driverImage); err != nil {
				t.Fatalf("images.sh: %v\n%s", err, out)
			}
		}
	}
	return filepath.Join(dir, "loopfile"), filepath.Join(dir, "csikit")
}

// manifests asks a driver with these arguments what Kubernetes must have for it.
func manifests(t *testing.T, v variant) string {
	t.Helper()
	driver, csikit := build(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "csi.sock")
	var log bytes.Buffer
	cmd := exec.Command(driver, append([]string{"-endpoint", "unix://" + socket, "-node-id", "x", "-allow-root-fs",
		"-pool", filepath.Join(dir, "pool"), "-state-dir", filepath.Join(work(), "ask")}, v.args...)...)
	cmd.Stderr = &log
	if err := errors.Join(os.MkdirAll(filepath.Join(work(), "ask"), 0o700), cmd.Start()); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"manifests", "-endpoint", "unix://" + socket, "-image", driverImage, "-host-path", "/srv", "-fs", "ext4,xfs,btrfs"}, v.flags...)
	args = append(append(args, "--", "-pool="+pool), v.args...)
	var out, said bytes.Buffer
	ask := exec.Command(csikit, args...)
	ask.Stdout, ask.Stderr = &out, &said
	err := ask.Run()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait() // it was told to stop
	if err != nil {
		t.Fatalf("%v: %v\n%s\n%s", ask.Args, err, &said, &log)
	}
	if v.edit != nil {
		return v.edit.Replace(out.String())
	}
	return out.String()
}

// deploy puts a driver into the cluster as its manifests say, and waits until kubelet
// knows it.
func deploy(t *testing.T, v variant) *deployed {
	t.Helper()
	if v.metadata && metadataBuilt() {
		v.flags = append(slices.Clone(v.flags), metadataFlags(t)...)
	}
	d := &deployed{v, manifests(t, v)}
	if out, err := try(d.manifests, "apply", "--dry-run=server", "-f", "-"); err != nil {
		t.Fatalf("the apiserver refuses the manifests: %v\n%s", err, out)
	}
	apply(t, d.manifests)
	apply(t, d.class("immediate", "xfs", "Immediate", "Delete"))
	apply(t, d.class("retain", "xfs", "Immediate", "Retain"))
	t.Cleanup(func() { d.remove(t) })
	d.waitReady(t)
	return d
}

func (d *deployed) class(name, fs, binding, reclaim string) string {
	return fmt.Sprintf(`---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: %s}
provisioner: %s
parameters: {csi.storage.k8s.io/fstype: %s}
volumeBindingMode: %s
reclaimPolicy: %s
allowVolumeExpansion: true
`, name, driverName, fs, binding, reclaim)
}

func (d *deployed) waitReady(t *testing.T) {
	t.Helper()
	is(t, "1", "{.status.numberReady}", "-n", "kube-system", "daemonset", driverBase+"-node")
	eventually(t, "kubelet registers the driver", func() error {
		out, err := try("", "get", "csinode", "csi-node", "-o", "jsonpath={.spec.drivers[*].name}")
		if err == nil && !strings.Contains(out, driverName) {
			err = fmt.Errorf("CSINode has %q\n%s", out, d.log(10))
		}
		return err
	})
}

func (d *deployed) remove(t *testing.T) {
	t.Helper()
	if t.Failed() {
		out, _ := try("", "-n", "kube-system", "describe", "pod", "-l", "app.kubernetes.io/name="+driverBase)
		t.Logf("%s\n%s", out, d.log(40))
	}
	if _, err := try(d.manifests, "delete", "--ignore-not-found", "--timeout=120s", "-f", "-"); err != nil {
		t.Error(err)
	}
	_, _ = try("", "delete", "sc", "immediate", "retain", "--ignore-not-found")
	eventually(t, "the driver's pod ends", func() error {
		out, err := try("", "-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/name="+driverBase, "--no-headers")
		if err == nil && out != "" && !strings.Contains(out, "No resources") {
			err = errors.New(out)
		}
		return err
	})
	d.leftovers(t)
}

// leftovers: nothing of the driver's stays when its volumes are gone.
func (d *deployed) leftovers(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{pool + "/v/*/img", "/var/lib/kubelet/plugins_registry/*.sock", "/var/lib/kubelet/plugins/" + driverName + "/csi.sock"} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// pod is the driver's.
func (d *deployed) pod() string {
	out, _ := try("", "-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/name="+driverBase, "-o", "jsonpath={.items[0].metadata.name}")
	return out
}

// log is the end of the driver's log, by lines.
func (d *deployed) log(lines int) string {
	out, err := try("", "-n", "kube-system", "logs", d.pod(), "-c", "driver", fmt.Sprintf("--tail=%d", lines))
	if err != nil {
		return err.Error()
	}
	return out
}

// flow is one way through the components; passes names them.
type flow struct {
	name   string
	passes string
	not    func(d *deployed) string // why it is not for this driver
	run    func(s *space)
}

func never(*deployed) string { return "" }

func attachOnly(d *deployed) string {
	if !d.attach {
		return "attachRequired is false"
	}
	return ""
}

func runFlows(t *testing.T, d *deployed, flows []flow) {
	for _, f := range flows {
		if why := f.not(d); why != "" {
			note(f.name, d.name, "- "+why)
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			began := time.Now()
			t.Logf("passes: %s", f.passes)
			t.Cleanup(func() {
				switch {
				case t.Failed():
					note(f.name, d.name, "FAIL")
				case t.Skipped():
					note(f.name, d.name, "skipped")
				default:
					note(f.name, d.name, passed(time.Since(began)))
				}
			})
			f.run(newSpace(t, d))
		})
	}
}

// TestFlows walks every flow with every way to deploy the driver.
func TestFlows(t *testing.T) {
	for _, v := range variants {
		t.Run(strings.NewReplacer(" ", "", ",", "-").Replace(v.name), func(t *testing.T) {
			d := deploy(t, v)
			runFlows(t, d, flows)
		})
	}
}

// TestSmoke is what .ci/run has time for: one driver, a volume through its life.
func TestSmoke(t *testing.T) {
	runFlows(t, deploy(t, variants[0]), smoke)
	for _, v := range variants[1:] {
		for _, f := range smoke {
			note(f.name, v.name, "- it is of steps that the flows have")
		}
	}
}
