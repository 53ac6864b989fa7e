package manifests

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Options are what a driver cannot say of itself.
type Options struct {
	Image     string
	Namespace string // made too, unless it is default or kube-system
	Kubelet   string // its directory on the host; "": /var/lib/kubelet

	// Registrar uses node-driver-registrar and livenessprobe; else the driver
	// registers and answers /healthz by itself (csidriver.Options.KubeletRegistry and
	// HealthAddress).
	Registrar bool
	// SingleNode is for a cluster of one node: the sidecars stand beside the node's
	// driver, and serve all.
	SingleNode bool
	// Plain leaves out the flags of csikit's examples, so that the driver gets Args
	// alone, and CSI_ENDPOINT.
	Plain bool
	Args  []string // of the driver, after those
	// HostPaths are directories of the host that the driver needs: its pool, say.
	HostPaths []string
	// HealthPort of the driver's pods; 0: 9808. Drivers in the host's network must not
	// have the same.
	HealthPort int
	Secrets    bool // classes refer to secrets of the controller's calls

	// MetadataTLS is a secret of type kubernetes.io/tls in Namespace, which has
	// external-snapshot-metadata serve; its certificate is for the name
	// (driver's name with dashes)-snapshot-metadata.(Namespace), and from MetadataCA, in PEM.
	MetadataTLS string
	MetadataCA  []byte

	FSTypes    []string // a StorageClass for each
	Parameters map[string]string
	Mutable    map[string]string // a VolumeAttributesClass
}

// layout is who runs where.
type layout int

const (
	split       layout = iota // a Deployment with the sidecars, a DaemonSet
	distributed               // a DaemonSet, and each node's sidecars serve its own volumes
	together                  // a DaemonSet of one node
)

type writer struct {
	f      *Facts
	o      Options
	layout layout
	base   string
}

// Write writes the manifests of a driver to out.
func Write(out io.Writer, f *Facts, o Options) error {
	w := &writer{f: f, o: o, base: f.base()}
	if w.o.Kubelet == "" {
		w.o.Kubelet = "/var/lib/kubelet"
	}
	// The apiserver takes no "..", and a path that has two names is mounted twice.
	w.o.Kubelet, w.o.HostPaths = clean(w.o.Kubelet), slices.Clone(o.HostPaths)
	for i, p := range w.o.HostPaths {
		w.o.HostPaths[i] = clean(p)
	}
	w.o.Secrets = w.o.Secrets || namesSecrets(w.o.Parameters)
	if w.o.HealthPort == 0 {
		w.o.HealthPort = 9808
	}
	switch {
	case o.SingleNode:
		w.layout = together
	case f.nodeLocal():
		w.layout = distributed
	}
	if err := w.check(); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s %s, as the driver says of itself: csikit manifests\n", f.Name, oneLine(f.Version))
	for _, o := range w.objects() {
		b.WriteString(document(o))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (w *writer) objects() []object {
	var all []object
	if !slices.Contains([]string{"default", "kube-system"}, w.o.Namespace) {
		all = append(all, object{{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", object{
			{"name", w.o.Namespace},
			// What mounts must be privileged.
			{"labels", object{{"pod-security.kubernetes.io/enforce", "privileged"}}},
		}}})
	}
	all = append(all, w.csiDriver())
	all = append(all, w.rbac()...)
	all = append(all, w.daemonSet())
	if w.layout == split && w.f.hasController() {
		all = append(all, w.deployment())
	}
	return append(append(all, w.metadataService()...), w.classes()...)
}

func (w *writer) csiDriver() object {
	var tokens list
	if audiences := w.f.csiDriver("tokenRequests", ""); audiences != "" {
		for a := range strings.SplitSeq(audiences, ",") {
			tokens = append(tokens, object{{"audience", a}})
		}
	}
	return object{
		{"apiVersion", "storage.k8s.io/v1"},
		{"kind", "CSIDriver"},
		{"metadata", w.meta(w.f.Name, false)},
		{"spec", object{
			{"attachRequired", w.f.csiDriverBool("attachRequired", w.f.attaches())},
			{"podInfoOnMount", w.f.csiDriverBool("podInfoOnMount", false)},
			{"fsGroupPolicy", w.f.fsGroupPolicy()},
			{"requiresRepublish", w.f.csiDriverBool("requiresRepublish", false)},
			{"seLinuxMount", w.f.csiDriverBool("seLinuxMount", false)},
			{"storageCapacity", w.f.capacity()},
			{"volumeLifecycleModes", strings.Split(w.f.csiDriver("volumeLifecycleModes", "Persistent"), ",")},
			{"tokenRequests", only(tokens != nil, tokens)},
		}},
	}
}

func (w *writer) meta(name string, namespaced bool) object {
	return object{
		{"name", name},
		{"namespace", only(namespaced, w.o.Namespace)},
		{"labels", object{{"app.kubernetes.io/name", w.base}}},
	}
}

func pairs(m map[string]string) object {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var o object
	for _, k := range keys {
		o = append(o, field{k, m[k]})
	}
	return o
}
