package kubernetes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deployed is a driver in the cluster.
type deployed struct {
	variant
	manifests string
}

func (d *deployed) base() string { return d.driver.base() }

// class is the name of a class: of a file system, or as it is.
func (d *deployed) class(name string) string {
	switch {
	case name != ext4 && name != xfs:
		return name
	case slices.Contains(d.driver.flags, "-fs"):
		return d.base() + "-" + name
	default:
		return d.base() // its volumes have no file system of their own
	}
}

// binary builds a command of the repository, once.
func binary(t *testing.T, pkg string) string {
	t.Helper()
	file := filepath.Join(work(), "bin", filepath.Base(pkg))
	if _, err := os.Stat(file); err == nil {
		return file
	}
	if built := filepath.Join(os.Getenv(builtFor), filepath.Base(pkg)); inVM() {
		return built // the VM would take minutes
	}
	if err := build(file, pkg); err != nil {
		t.Fatal(err)
	}
	return file
}

func build(file, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", file, "./"+pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}

// images that containerd has.
var images = map[string]bool{}

// load makes a driver's image, once.
func (d *driver) load(t *testing.T) {
	t.Helper()
	if images[d.image()] {
		return
	}
	if out, err := script("images.sh", "driver", binary(t, d.pkg), d.image()); err != nil {
		t.Fatalf("images.sh: %v\n%s", err, out)
	}
	images[d.image()] = true
}

// manifests asks a driver with these arguments what Kubernetes must have for it.
func manifests(t *testing.T, v variant) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	socket, ask := filepath.Join(dir, "csi.sock"), filepath.Join(work(), "ask")
	var log bytes.Buffer
	asked := append([]string{"-endpoint", "unix://" + socket, "-node-id", "x", "-state-dir", ask}, v.driver.asked(dir)...)
	cmd := exec.Command(binary(t, v.driver.pkg), append(asked, v.args...)...)
	cmd.Stderr = &log
	if err := errors.Join(os.MkdirAll(ask, 0o700), cmd.Start()); err != nil {
		t.Fatal(err)
	}
	args := []string{"manifests", "-endpoint", "unix://" + socket, "-image", v.driver.image()}
	for k, value := range v.parameters {
		args = append(args, "-parameters", k+"="+value)
	}
	args = slices.Concat(args, v.driver.flags, v.flags, []string{"--"}, v.driver.there, v.args)
	var out, said bytes.Buffer
	csikit := exec.Command(binary(t, "cmd/csikit"), args...)
	csikit.Stdout, csikit.Stderr = &out, &said
	err = csikit.Run()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait() // it was told to stop
	if err != nil {
		t.Fatalf("%v: %v\n%s\n%s", csikit.Args, err, &said, &log)
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
	if v.prepare != nil {
		if err := v.prepare(); err != nil {
			t.Fatal(err)
		}
	}
	v.driver.load(t)
	if v.metadata && metadataBuilt() {
		v.flags = append(slices.Clone(v.flags), metadataFlags(t, v.driver)...)
	}
	if v.secrets {
		v.flags = append(slices.Clone(v.flags), "-controller-secrets")
	}
	d := &deployed{v, manifests(t, v)}
	if out, err := try(d.manifests, "apply", "--dry-run=server", "-f", "-"); err != nil {
		t.Fatalf("the apiserver refuses the manifests: %v\n%s", err, out)
	}
	apply(t, d.manifests)
	apply(t, d.newClass("immediate", "Immediate", "Delete", nil))
	apply(t, d.newClass("retain", "Immediate", "Retain", nil))
	t.Cleanup(func() { d.remove(t) })
	d.waitReady(t)
	return d
}

// newClass is a StorageClass with the variant's parameters, and more.
func (d *deployed) newClass(name, binding, reclaim string, more map[string]string) string {
	parameters := maps.Clone(d.parameters)
	if parameters == nil {
		parameters = map[string]string{}
	}
	if d.class(xfs) != d.base() {
		parameters["csi.storage.k8s.io/fstype"] = xfs
	}
	maps.Copy(parameters, more)
	written, _ := json.Marshal(parameters) // strings
	return fmt.Sprintf(`---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: %s}
provisioner: %s
parameters: %s
volumeBindingMode: %s
reclaimPolicy: %s
allowVolumeExpansion: true
`, name, d.driver.name, written, binding, reclaim)
}

func (d *deployed) waitReady(t *testing.T) {
	t.Helper()
	is(t, "1", "{.status.numberReady}", "-n", "kube-system", "daemonset", d.base()+"-node")
	if strings.Contains(d.manifests, "\nkind: Deployment\n") {
		is(t, "1", "{.status.readyReplicas}", "-n", "kube-system", "deployment", d.base()+"-controller")
	}
	eventually(t, "kubelet registers the driver", func() error {
		out, err := try("", "get", "csinode", "csi-node", "-o", "jsonpath={.spec.drivers[*].name}")
		if err == nil && !strings.Contains(out, d.driver.name) {
			err = fmt.Errorf("CSINode has %q\n%s", out, d.log(10))
		}
		return err
	})
}

func (d *deployed) remove(t *testing.T) {
	t.Helper()
	if t.Failed() {
		out, _ := try("", "-n", "kube-system", "describe", "pod", "-l", "app.kubernetes.io/name="+d.base())
		t.Logf("%s\n%s", out, d.log(40))
	}
	if _, err := try(d.manifests, "delete", "--ignore-not-found", "--timeout=120s", "-f", "-"); err != nil {
		t.Error(err)
	}
	_, _ = try("", "delete", "sc", "immediate", "retain", "--ignore-not-found")
	eventually(t, "the driver's pod ends", func() error {
		out, err := try("", "-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/name="+d.base(), "--no-headers")
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
	if left, err := d.driver.left(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, pattern := range []string{"/var/lib/kubelet/plugins_registry/*.sock", "/var/lib/kubelet/plugins/" + d.driver.name + "/csi.sock*"} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// pod is the first of the driver's.
func (d *deployed) pod() string {
	out, _ := try("", "-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/name="+d.base(), "-o", "jsonpath={.items[0].metadata.name}")
	return out
}

// log is the end of the driver's log, by lines, of each of its pods.
func (d *deployed) log(lines int) string {
	out, err := d.tail(lines)
	if err != nil {
		return err.Error()
	}
	return out
}

func (d *deployed) tail(lines int) (string, error) {
	return try("", "-n", "kube-system", "logs", "-l", "app.kubernetes.io/name="+d.base(), "-c", "driver", fmt.Sprintf("--tail=%d", lines))
}

// logged is a call as the driver's log has it.
type logged struct{ line, code string }

// calls are those of a method for a volume.
func (d *deployed) calls(method, handle string) (list []logged, err error) {
	log, err := d.tail(-1)
	call := regexp.MustCompile(`method=` + method + ` .*volume=` + regexp.QuoteMeta(handle) + ` .*code=(\w+)`)
	for _, m := range call.FindAllStringSubmatch(log, -1) {
		list = append(list, logged{m[0], m[1]})
	}
	return list, err
}

// logs are the ends of those of all containers.
func (d *deployed) logs(lines int) string {
	out, err := try("", "-n", "kube-system", "logs", "-l", "app.kubernetes.io/name="+d.base(), "--all-containers", "--prefix", fmt.Sprintf("--tail=%d", lines), "--max-log-requests=20")
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
			var s *space
			t.Logf("passes: %s", f.passes)
			t.Cleanup(func() {
				switch {
				case t.Failed():
					note(f.name, d.name, "FAIL")
				case t.Skipped():
					note(f.name, d.name, "skipped")
				default:
					note(f.name, d.name, passed(time.Since(began))+s.remark)
				}
			})
			s = newSpace(t, d)
			f.run(s)
		})
	}
}

// TestFlows walks every flow with every way to deploy the driver.
func TestFlows(t *testing.T) {
	for _, v := range variants() {
		t.Run(strings.NewReplacer(" ", "", ",", "-").Replace(v.name), func(t *testing.T) {
			d := deploy(t, v)
			runFlows(t, d, v.flows)
		})
	}
}

// TestSmoke is what .ci/run has time for: one driver, a volume through its life.
func TestSmoke(t *testing.T) {
	runFlows(t, deploy(t, variants()[0]), smoke)
	noteSmoke(variants()[1:])
}
