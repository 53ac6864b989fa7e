package manifests

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"

	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/mounter/mountertest"
)

var update = flag.Bool("update", false, "write testdata")

// running is an engine that mountertest has started and closes.
type running struct{ *mountertest.Engine }

func (running) Start(context.Context) error { return nil }
func (running) Close() error                { return nil }

// run is a driver that serves, and a connection to it.
func run(t *testing.T, cfg csidriver.Config) *grpc.ClientConn {
	t.Helper()
	cfg.Version = "v1.2.3"
	d, err := csidriver.New(cfg, &csidriver.Options{NodeID: "node-1", Engine: running{mountertest.New(t, cfg.Node, nil)}})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "m") //nolint:usetesting // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	lis, err := csidriver.Listen(socket, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, lis) }()
	conn, err := csiclient.Dial("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := errors.Join(<-served, os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	if err := csiclient.WaitReady(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

func memory(t *testing.T, without ...string) *Facts {
	t.Helper()
	b, err := mem.New(&mem.Options{Node: "node-1", Without: without})
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, run(t, csidriver.Config{Name: "mem.csikit.dev", Traits: b.Traits(), Controller: b, Node: b}))
}

func loop(t *testing.T) *Facts {
	t.Helper()
	b, err := loopfile.New(loopfile.Options{Pool: filepath.Join(t.TempDir(), "pool"), Node: "node-1", Init: true, AllowRootFS: true, EphemeralMax: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return ask(t, run(t, csidriver.Config{Name: "loopfile.csikit.dev", Traits: b.Traits(), Controller: b, Node: b}))
}

func ask(t *testing.T, conn *grpc.ClientConn) *Facts {
	t.Helper()
	f, err := Ask(t.Context(), conn, conn)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// write gives the manifests, and each object as YAML reads it, by kind.
func write(t *testing.T, f *Facts, o Options) (string, map[string][]map[string]any) {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, f, o); err != nil {
		t.Fatal(err)
	}
	kinds := map[string][]map[string]any{}
	for d := yaml.NewDecoder(strings.NewReader(b.String())); ; {
		var m map[string]any
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return b.String(), kinds
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, &b)
		}
		kind, _ := m["kind"].(string)
		if m["apiVersion"] == nil || kind == "" {
			t.Fatalf("no object: %v", m)
		}
		kinds[kind] = append(kinds[kind], m)
	}
}

// at follows keys and indexes into an object.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("%v: %v is no mapping", path, v)
			}
			v = m[p]
		case int:
			l, ok := v.([]any)
			if !ok || len(l) <= p {
				t.Fatalf("%v: %v has no element %d", path, v, p)
			}
			v = l[p]
		}
	}
	return v
}

// containers are those of a pod's template by name.
func containers(t *testing.T, workload map[string]any) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	for _, c := range at(t, workload, "spec", "template", "spec", "containers").([]any) {
		m := c.(map[string]any)
		out[m["name"].(string)] = m
	}
	return out
}

// certificate is one by its form only.
const certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

func TestGolden(t *testing.T) {
	for name, tt := range map[string]struct {
		facts *Facts
		o     Options
	}{
		"mem": {memory(t), Options{Image: "registry.example.com/mem:v1", Namespace: "storage", FSTypes: []string{"xfs"}, Mutable: map[string]string{"iops": "100"}}},
		"loopfile": {loop(t), Options{
			Image: "registry.example.com/loopfile:v1", Namespace: "kube-system", HostPaths: []string{"/srv/volumes"},
			FSTypes: []string{"ext4", "xfs"}, Parameters: map[string]string{"type": "thin", "blockSize": "512"}, Args: []string{"-pool=/srv/volumes/pool"},
		}},
		"metadata": {memory(t), Options{
			Image: "registry.example.com/mem:v1", Namespace: "storage", Secrets: true, MetadataTLS: "mem-tls", MetadataCA: []byte(certificate),
		}},
		"nodes": {nodes(t), Options{
			Image: "registry.example.com/x@sha256:" + strings.Repeat("0", 64), Namespace: "0-a", Registrar: true, Plain: true,
			Args: []string{"", "-x=$(NODE_NAME) y", "# no", "{a: b}", "'", "\\", "é\n"},
		}},
		"registrar": {loop(t), Options{Image: "loopfile:v1", Namespace: "kube-system", Registrar: true, SingleNode: true, Secrets: true, Kubelet: "/data/kubelet"}},
	} {
		got, _ := write(t, tt.facts, tt.o)
		path := filepath.Join("testdata", name+".yaml")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, []byte(got)) {
			t.Errorf("%s is not what is written now; -update writes it", path)
		}
	}
}

// TestSidecars: a capability that is not there takes its sidecar, its rules and its
// class along.
func TestSidecars(t *testing.T) {
	for _, tt := range []struct {
		without   []string
		want      []string
		resources string // that nobody may have then
	}{
		{nil, []string{"csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter", "driver"}, ""},
		{[]string{"Snapshotter", "Attacher"}, []string{"csi-provisioner", "csi-resizer", "driver"}, "volumesnapshots volumegroupsnapshotcontents volumeattachments"},
		{[]string{"Snapshotter", "Attacher", "Expander", "Modifier", "TopologyReporter", "CapacityReporter"}, []string{"csi-provisioner", "driver"},
			"volumesnapshots volumeattachments volumeattributesclasses nodes csistoragecapacities pods replicasets secrets"},
	} {
		f := memory(t, tt.without...)
		text, kinds := write(t, f, Options{Image: "mem", Namespace: "default"})
		got := slices.Sorted(maps.Keys(containers(t, kinds["Deployment"][0])))
		if !slices.Equal(got, tt.want) {
			t.Errorf("without %v: %v", tt.without, got)
		}
		for r := range strings.FieldsSeq(tt.resources) {
			if strings.Contains(text, "["+r+"]") {
				t.Errorf("without %v: a role has %s", tt.without, r)
			}
		}
		if n := len(kinds["VolumeSnapshotClass"]); (n == 0) != slices.Contains(tt.without, "Snapshotter") {
			t.Errorf("without %v: %d snapshot classes", tt.without, n)
		}
		if at(t, kinds["CSIDriver"][0], "spec", "attachRequired") != !slices.Contains(tt.without, "Attacher") {
			t.Errorf("without %v: attachRequired is wrong", tt.without)
		}
		if len(containers(t, kinds["DaemonSet"][0])) != 1 || kinds["Namespace"] != nil {
			t.Errorf("without %v: sidecars on nodes, or a namespace", tt.without)
		}
	}
}

// TestSecretRules: each sidecar may get secrets where classes name them, and do nothing
// else with them; elsewhere none may.
func TestSecretRules(t *testing.T) {
	for _, asked := range []bool{false, true} {
		o := Options{Image: "mem", Namespace: "default", Secrets: asked, MetadataTLS: "mem-tls", MetadataCA: []byte(certificate)}
		_, kinds := write(t, memory(t), o)
		may := 0
		for _, role := range append(kinds["ClusterRole"], kinds["Role"]...) {
			for _, r := range role["rules"].([]any) {
				r := r.(map[string]any)
				if !slices.Contains(r["resources"].([]any), any("secrets")) {
					continue
				}
				may++
				if verbs := r["verbs"].([]any); len(verbs) != 1 || verbs[0] != "get" {
					t.Errorf("%v: %v", at(t, role, "metadata", "name"), verbs)
				}
			}
		}
		if want := map[bool]int{true: 5}[asked]; may != want {
			t.Errorf("asked for %v: %d roles have secrets, want %d", asked, may, want)
		}
	}
}

// TestCapacityWithoutTopology: it is not tracked, whatever the driver says, or the
// scheduler would find no node with enough of it.
func TestCapacityWithoutTopology(t *testing.T) {
	f := memory(t, "TopologyReporter")
	f.manifest["kubernetes.csidriver/storageCapacity"] = "true"
	text, kinds := write(t, f, Options{Image: "mem", Namespace: "default"})
	for _, not := range []string{"--enable-capacity", "csistoragecapacities", "resources: [csinodes]\n  verbs: [get, list, watch]\n- apiGroups: [\"\"]\n  resources: [nodes]"} {
		if strings.Contains(text, not) {
			t.Errorf("there is %q", not)
		}
	}
	if at(t, kinds["CSIDriver"][0], "spec", "storageCapacity") != false {
		t.Error("the scheduler waits for what nobody says")
	}
}

// TestNodeLocal: a driver with the storage on its nodes has its sidecars there.
func TestNodeLocal(t *testing.T) {
	_, kinds := write(t, loop(t), Options{Image: "loopfile", Namespace: "x"})
	if len(kinds["Deployment"]) > 0 || len(kinds["VolumeGroupSnapshotClass"]) > 0 {
		t.Error("a Deployment, or a class that nobody serves")
	}
	c := containers(t, kinds["DaemonSet"][0])
	for _, name := range []string{"csi-provisioner", "csi-snapshotter"} {
		if !slices.Contains(c[name]["args"].([]any), any("--node-deployment")) {
			t.Errorf("%s: %v", name, c[name]["args"])
		}
	}
	driver := c["driver"]
	for _, want := range []string{"-register", "-kubelet-endpoint=/var/lib/kubelet/plugins/loopfile.csikit.dev/csi.sock", "-health=:9808"} {
		if !slices.Contains(driver["args"].([]any), any(want)) {
			t.Errorf("no %s: %v", want, driver["args"])
		}
	}
	if at(t, driver, "livenessProbe", "httpGet", "path") != "/healthz" || at(t, driver, "readinessProbe", "httpGet", "path") != "/readyz" {
		t.Error("the driver's probes")
	}
	if at(t, kinds["StorageClass"][0], "volumeBindingMode") != "WaitForFirstConsumer" {
		t.Error("the storage is on nodes")
	}
	if at(t, kinds["CSIDriver"][0], "metadata", "labels", "app.kubernetes.io/name") != "loopfile-csikit-dev" {
		t.Error("kubectl -l does not find the CSIDriver")
	}
	if at(t, kinds["Namespace"][0], "metadata", "name") != "x" {
		t.Error("the namespace")
	}
}

// TestRegistrar: with a registrar the driver is not told to register, and livenessprobe
// gets time for a driver that starts.
func TestRegistrar(t *testing.T) {
	_, kinds := write(t, loop(t), Options{Image: "loopfile", Namespace: "default", Registrar: true, Plain: true, Args: []string{"--x=1"}})
	c := containers(t, kinds["DaemonSet"][0])
	if args := c["driver"]["args"].([]any); len(args) != 1 || args[0] != "--x=1" {
		t.Errorf("arguments of a plain driver: %v", args)
	}
	if c["csi-node-driver-registrar"] == nil || c["livenessprobe"] == nil || at(t, c["driver"], "startupProbe", "failureThreshold") != 60 {
		t.Errorf("%v", slices.Sorted(maps.Keys(c)))
	}
}

// TestDeployment: what a driver says that its pods must have, they have, and only then.
func TestDeployment(t *testing.T) {
	f := memory(t)
	for _, asked := range []bool{false, true} {
		if asked {
			maps.Copy(f.manifest, map[string]string{
				"kubernetes.deployment/hostNetwork": "true", "kubernetes.deployment/privilegedController": "true", "kubernetes.deployment/hostPaths": "/run/lock/lvm,/etc/lvm",
			})
		}
		_, kinds := write(t, f, Options{Image: "mem", Namespace: "default", HealthPort: 1234})
		node, controller := kinds["DaemonSet"][0], kinds["Deployment"][0]
		pod := at(t, node, "spec", "template", "spec").(map[string]any)
		if pod["hostNetwork"] != nil != asked || at(t, controller, "spec", "template", "spec").(map[string]any)["hostNetwork"] != nil {
			t.Errorf("hostNetwork %v: %v", asked, pod["hostNetwork"])
		}
		paths := map[any]any{}
		for _, v := range pod["volumes"].([]any) {
			if p, ok := v.(map[string]any)["hostPath"].(map[string]any); ok {
				paths[p["path"]] = p["type"]
			}
		}
		mounts, _ := yaml.Marshal(containers(t, node)["driver"]["volumeMounts"]) // of what was read from YAML
		if paths["/etc/lvm"] != nil != asked || strings.Contains(string(mounts), "mountPath: /run/lock/lvm\n") != asked {
			t.Errorf("host paths %v: %v\n%s", asked, paths, mounts)
		}
		driver := containers(t, controller)["driver"]
		if at(t, driver, "securityContext", "privileged") != nil != asked {
			t.Errorf("privileged %v: %v", asked, driver["securityContext"])
		}
		if at(t, driver, "livenessProbe", "httpGet", "port") != 1234 || !slices.Contains(driver["args"].([]any), any("-health=:1234")) {
			t.Errorf("the port of its health: %v %v", driver["livenessProbe"], driver["args"])
		}
	}
}

// TestSecrets: sidecars may read secrets when they are told to, or the parameters
// name one of theirs; kubelet reads those of nodes itself.
func TestSecrets(t *testing.T) {
	for parameter, want := range map[string]bool{
		"":                          false,
		"csi.storage.k8s.io/fstype": false,
		"secret-name":               false,
		"csi.storage.k8s.io/node-stage-secret-name":         false,
		"csi.storage.k8s.io/node-publish-secret-name":       false,
		"csi.storage.k8s.io/node-expand-secret-name":        false,
		"csi.storage.k8s.io/provisioner-secret-name":        true,
		"csi.storage.k8s.io/controller-publish-secret-name": true,
		"csi.storage.k8s.io/controller-expand-secret-name":  true,
	} {
		text, _ := write(t, memory(t), Options{Image: "mem", Namespace: "default", Parameters: map[string]string{parameter: "x"}})
		if got := strings.Contains(text, "resources: [secrets]"); got != want {
			t.Errorf("parameter %q: secrets may be read %v, want %v", parameter, got, want)
		}
	}
}

// TestOneController: a driver that still drains, and its successor, know nothing of
// each other's operations.
func TestOneController(t *testing.T) {
	_, kinds := write(t, memory(t), Options{Image: "mem", Namespace: "default"})
	if got := at(t, kinds["Deployment"][0], "spec", "strategy", "type"); got != "Recreate" {
		t.Errorf("strategy %v", got)
	}
}

// TestDefaultFS: by the default policy kubelet leaves a pod's fsGroup out where the
// PersistentVolume names no file system. By another one it need not name any, and a
// copy may have another file system than the class of the copy has by default.
func TestDefaultFS(t *testing.T) {
	for _, tt := range []struct {
		f      *Facts
		policy string
		want   bool
	}{{loop(t), "", true}, {loop(t), "ReadWriteOnceWithFSType", true}, {loop(t), "File", false}, {loop(t), "None", false}, {memory(t), "", false}} {
		const key = "kubernetes.csidriver/fsGroupPolicy"
		if tt.f.manifest[key] = tt.policy; tt.policy == "" {
			delete(tt.f.manifest, key)
		}
		text, _ := write(t, tt.f, Options{Image: "x", Namespace: "default"})
		if strings.Contains(text, `"--default-fstype=ext4"`) != tt.want {
			t.Errorf("%s, policy %q: a default file system: want %v", tt.f.Name, tt.policy, tt.want)
		}
	}
}

// TestHostNetwork: a port of the host is the scheduler's to give away, whoever answers
// at it, and names are the same in the host's network as in the controller's.
func TestHostNetwork(t *testing.T) {
	f := memory(t)
	for _, host := range []bool{false, true} {
		f.manifest = maps.Clone(f.manifest)
		delete(f.manifest, "kubernetes.deployment/hostNetwork")
		if host {
			f.manifest["kubernetes.deployment/hostNetwork"] = "true"
		}
		_, kinds := write(t, f, Options{Image: "mem", Namespace: "default", Registrar: true, HealthPort: 1234})
		node := kinds["DaemonSet"][0]
		if got := at(t, node, "spec", "template", "spec", "dnsPolicy"); (got == "ClusterFirstWithHostNet") != host {
			t.Errorf("host network %v: dnsPolicy %v", host, got)
		}
		if got := at(t, containers(t, node)["driver"], "ports", 0, "containerPort"); got != 1234 {
			t.Errorf("host network %v: port %v", host, got)
		}
	}
}

// TestScalar: whatever a driver is called, YAML reads it back as text.
func TestScalar(t *testing.T) {
	for _, s := range []string{"", "yes", "No", "null", "~", "1", "1e3", "0x1f", "a: b", "- a", "#", "a #b", "$(X)", "é\n\t\"", "*", "&a", "{", "2026-11-22", ".inf", "a/b"} {
		var got any
		if err := yaml.Unmarshal([]byte("k: "+scalar(s)), &got); err != nil || got.(map[string]any)["k"] != s {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
}
