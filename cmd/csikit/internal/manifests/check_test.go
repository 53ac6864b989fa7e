package manifests

import (
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
)

func TestRefused(t *testing.T) {
	f := memory(t, "Modifier")
	err := Write(io.Discard, f, Options{
		Namespace: "A b", HostPaths: []string{"pool", "/a:b", "/", "/csi/", "/srv", "/srv/x/.."}, Plain: true, Mutable: map[string]string{"a": "b"},
		FSTypes: []string{"ext4", "ext4", "NTFS_3"}, Parameters: map[string]string{fsTypeKey: "xfs"}, HealthPort: 70000,
	})
	for _, want := range []string{
		"no image", "namespace", `"pool" is no absolute path`, `"/a:b" has a colon`, "/ of the host", `"/csi" is mounted`, `"/srv" is mounted`, "registrar", "does not modify",
		"ext4 is there twice", `"NTFS_3" cannot`, "and parameter csi.storage.k8s.io/fstype", "health port 70000",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	for _, name := range []string{"a..b", "a.-b", strings.Repeat("a", 64), "CSI.example.com", ""} {
		f.Name = name
		if err := Write(io.Discard, f, Options{Image: "x", Namespace: "default"}); err == nil || !strings.Contains(err.Error(), "no CSIDriver object") {
			t.Errorf("a driver called %q: %v", name, err)
		}
	}
}

// nodes is a driver without a controller that grows volumes, and has the longest
// name, with dots and digits.
func nodes(t *testing.T) *Facts {
	t.Helper()
	b, err := mem.New(&mem.Options{Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	traits := b.Traits()
	traits.AttachReadOnly, traits.SnapshotTopology, traits.Parameters = false, false, nil // they are the controller's
	return ask(t, run(t, csidriver.Config{Name: "1." + strings.Repeat("a", 52) + ".2-x.3.io", Traits: traits, Node: b}))
}

// TestNodesOnly: what has no controller has no sidecar of one, nor its roles and
// classes; and what it says of its version stays in its comment.
func TestNodesOnly(t *testing.T) {
	f := nodes(t)
	f.nodeExpand, f.Version = true, "v1\n---\nkind: Evil"
	_, kinds := write(t, f, Options{Image: "x", Namespace: "default"})
	if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, []string{"CSIDriver", "DaemonSet", "ServiceAccount"}) {
		t.Errorf("objects: %v", got)
	}
	err := Write(io.Discard, f, Options{Image: "x", Namespace: "default", FSTypes: []string{"ext4"}})
	if err == nil || !strings.Contains(err.Error(), "does not make volumes") {
		t.Errorf("a StorageClass: %v", err)
	}
}

// TestNeeded: what the driver needs and the user names too is mounted once.
func TestNeeded(t *testing.T) {
	f := loop(t)
	f.manifest = maps.Clone(f.manifest)
	f.manifest[deploymentPrefix+"hostPaths"] = "/run/lock/lvm,/srv,/dev,/run/lock/../lock/lvm,/srv/"
	_, kinds := write(t, f, Options{Image: "x", Namespace: "default", HostPaths: []string{"/srv/"}})
	seen := map[any]int{}
	for _, m := range containers(t, kinds["DaemonSet"][0])["driver"]["volumeMounts"].([]any) {
		seen[at(t, m, "mountPath")]++
	}
	for _, p := range []any{"/run/lock/lvm", "/srv", "/dev"} {
		if seen[p] != 1 {
			t.Errorf("%v is mounted %d times: %v", p, seen[p], seen)
		}
	}
	for paths, want := range map[string]string{"/": "/ of the host", "run": `"run" is no absolute path`, "/a:b": "colon"} {
		f.manifest[deploymentPrefix+"hostPaths"] = paths
		if err := Write(io.Discard, f, Options{Image: "x", Namespace: "default"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", paths, err)
		}
	}
}

// TestOtherFS: no volume could be made of a class with a file system that the driver
// does not have.
func TestOtherFS(t *testing.T) {
	err := Write(io.Discard, loop(t), Options{Image: "x", Namespace: "default", FSTypes: []string{"ext4", "zfs"}})
	if err == nil || !strings.Contains(err.Error(), `"zfs" is none of the driver's: ext4, xfs`) || strings.Contains(err.Error(), `"ext4"`) {
		t.Error(err)
	}
}

// TestLongPaths: kubelet connects by the path of a socket, and its address has 107
// bytes.
func TestLongPaths(t *testing.T) {
	f := nodes(t) // the longest name
	o := Options{Image: "x", Namespace: "default"}
	if err := Write(io.Discard, f, o); err != nil {
		t.Errorf("below kubelet's usual directory: %v", err)
	}
	o.Kubelet = "/var/snap/microk8s/common/var/lib/kubelet"
	for _, registrar := range []bool{false, true} {
		o.Registrar = registrar
		err := Write(io.Discard, f, o)
		for _, want := range []string{"plugins_registry/" + f.Name + "-reg.sock has 131 bytes", "plugins/" + f.Name + "/csi.sock has 122 bytes"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("registrar %v: %v does not say %q", registrar, err, want)
			}
		}
	}
}
