package manifests

// Images are the sidecars at the versions that these manifests were tested with.
var images = map[string]string{
	"csi-provisioner":           "registry.k8s.io/sig-storage/csi-provisioner:v6.3.0",
	"csi-attacher":              "registry.k8s.io/sig-storage/csi-attacher:v4.13.0",
	"csi-resizer":               "registry.k8s.io/sig-storage/csi-resizer:v2.3.0",
	"csi-snapshotter":           "registry.k8s.io/sig-storage/csi-snapshotter:v8.7.0",
	"csi-node-driver-registrar": "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.16.0",
	"livenessprobe":             "registry.k8s.io/sig-storage/livenessprobe:v2.18.0",
	"csi-snapshot-metadata":     "registry.k8s.io/sig-storage/csi-snapshot-metadata:v1.1.0",
}

// sidecar is a container beside the driver's that serves a part of Kubernetes' API.
type sidecar struct {
	name       string // of the container and the image
	args       []string
	env        list
	note       string
	cluster    []rule // in all namespaces
	namespaced []rule // in the driver's
	mounts     list   // besides the socket
	ready      object // its readiness probe; nil: none
	everywhere bool   // each replica serves: no leader is elected
}

// rule is one of RBAC.
type rule struct {
	group     string
	resources []string
	verbs     []string
}

var (
	read   = []string{"get", "list", "watch"}
	events = rule{"", []string{"events"}, []string{"list", "watch", "create", "update", "patch"}}
	leases = rule{"coordination.k8s.io", []string{"leases"}, []string{"get", "watch", "list", "delete", "update", "create"}}
	// Sidecars look at those that classes and objects name, and at no others.
	secrets   = rule{"", []string{"secrets"}, []string{"get"}}
	vaClasses = rule{"storage.k8s.io", []string{"volumeattributesclasses"}, read}
)

// sidecars are those that the driver's capabilities ask for.
func (w *writer) sidecars() []sidecar {
	var all []sidecar
	if w.f.provisions() {
		all = append(all, w.provisioner())
	}
	if w.f.attaches() {
		all = append(all, w.attacher())
	}
	if w.f.expands() || w.f.modifies() {
		all = append(all, w.resizer())
	}
	if w.f.snapshots() {
		all = append(all, w.snapshotter())
	}
	if w.o.MetadataTLS != "" {
		all = append(all, w.snapshotMetadata())
	}
	for i := range all {
		all[i].args = append([]string{"--csi-address=" + socketInPod, "--v=2"}, all[i].args...)
		if w.layout == split && !all[i].everywhere {
			all[i].args = append(all[i].args, "--leader-election", "--leader-election-namespace=$(NAMESPACE)")
			all[i].env = append(all[i].env, fieldEnv("NAMESPACE", "metadata.namespace"))
			all[i].namespaced = append(all[i].namespaced, leases)
		}
	}
	return all
}

func (w *writer) provisioner() sidecar {
	// Copies take minutes. Each call that ends before is made again, ever later.
	s := sidecar{name: "csi-provisioner", args: []string{"--extra-create-metadata", "--timeout=1m"}, cluster: []rule{
		{"", []string{"persistentvolumes"}, []string{"get", "list", "watch", "create", "patch", "delete"}},
		{"", []string{"persistentvolumeclaims"}, []string{"get", "list", "watch", "update"}},
		{"storage.k8s.io", []string{"storageclasses"}, read},
		events,
	}}
	if fs := w.f.fsTypes(); len(fs) > 0 && w.f.fsGroupPolicy() == byFSType {
		// Without one in the PersistentVolume kubelet leaves the pod's fsGroup out. With
		// another policy none is better: a copy may have the type of its source.
		s.args = append(s.args, "--default-fstype="+fs[0])
	}
	if w.layout == distributed {
		s.args = append(s.args, "--node-deployment", "--strict-topology")
		s.env = append(s.env, fieldEnv("NODE_NAME", "spec.nodeName"))
	} else if w.f.topology() {
		s.args = append(s.args, "--strict-topology")
	}
	// It looks where the driver runs.
	if w.layout != distributed && w.f.topology() {
		s.cluster = append(s.cluster, rule{"storage.k8s.io", []string{"csinodes"}, read}, rule{"", []string{"nodes"}, read})
	}
	if w.f.attaches() {
		s.cluster = append(s.cluster, rule{"storage.k8s.io", []string{"volumeattachments"}, read})
	}
	if w.f.modifies() {
		s.cluster = append(s.cluster, rule{vaClasses.group, vaClasses.resources, []string{"get"}})
	}
	if w.f.snapshots() {
		s.cluster = append(s.cluster,
			rule{"snapshot.storage.k8s.io", []string{"volumesnapshots"}, []string{"get", "list", "watch", "update"}},
			rule{"snapshot.storage.k8s.io", []string{"volumesnapshotcontents"}, []string{"get", "list"}})
	}
	if w.o.Secrets {
		s.cluster = append(s.cluster, secrets)
	}
	if w.f.capacity() {
		w.capacity(&s)
	}
	return s
}

// capacity makes the provisioner say how much space is where. The objects belong to
// the Deployment or DaemonSet, which the provisioner finds by its pod.
func (w *writer) capacity(s *sidecar) {
	owner := "--capacity-ownerref-level=1" // of the pod: the DaemonSet
	s.namespaced = append(s.namespaced,
		rule{"storage.k8s.io", []string{"csistoragecapacities"}, []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		rule{"", []string{"pods"}, []string{"get"}})
	if w.layout == split {
		owner = "--capacity-ownerref-level=2" // of the pod's ReplicaSet: the Deployment
		s.namespaced = append(s.namespaced, rule{"apps", []string{"replicasets"}, []string{"get"}})
	} else {
		s.env = append(s.env, fieldEnv("NAMESPACE", "metadata.namespace"))
	}
	s.args = append(s.args, "--enable-capacity", owner)
	s.env = append(s.env, fieldEnv("POD_NAME", "metadata.name"))
}

func (w *writer) attacher() sidecar {
	s := sidecar{name: "csi-attacher", cluster: []rule{
		{"", []string{"persistentvolumes"}, []string{"get", "list", "watch", "patch"}},
		{"storage.k8s.io", []string{"csinodes"}, read},
		{"storage.k8s.io", []string{"volumeattachments"}, []string{"get", "list", "watch", "patch"}},
		{"storage.k8s.io", []string{"volumeattachments/status"}, []string{"patch"}},
	}}
	if w.layout == distributed {
		s.note = "external-attacher cannot be told to serve one node only: with more than one node each asks its own driver."
	}
	if w.o.Secrets {
		s.cluster = append(s.cluster, secrets)
	}
	return s
}

func (w *writer) resizer() sidecar {
	s := sidecar{name: "csi-resizer", cluster: []rule{
		{"", []string{"persistentvolumes"}, []string{"get", "list", "watch", "patch"}},
		{"", []string{"persistentvolumeclaims"}, read},
		{"", []string{"persistentvolumeclaims/status"}, []string{"patch"}},
		events,
	}}
	if w.f.online() {
		// Only a driver that cannot grow what is in use needs to know the pods.
		s.args = append(s.args, "--handle-volume-inuse-error=false")
	} else {
		s.cluster = append(s.cluster, rule{"", []string{"pods"}, read})
	}
	if w.f.modifies() {
		s.args = append(s.args, "--extra-modify-metadata")
	}
	s.cluster = append(s.cluster, vaClasses) // watched whether the driver modifies or not
	if w.layout == distributed {
		s.note = "external-resizer cannot be told to serve one node only: with more than one node each asks its own\n" +
			"driver, those that do not have the volume answer UNAVAILABLE, and the one that has it grows it."
	}
	if w.o.Secrets {
		s.cluster = append(s.cluster, secrets)
	}
	return s
}

func (w *writer) snapshotter() sidecar {
	const group, groups = "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"
	s := sidecar{name: "csi-snapshotter", args: []string{"--extra-create-metadata"}, cluster: []rule{
		events,
		{group, []string{"volumesnapshotclasses"}, read},
		{group, []string{"volumesnapshotcontents"}, []string{"get", "list", "watch", "update", "patch"}},
		{group, []string{"volumesnapshotcontents/status"}, []string{"update", "patch"}},
	}}
	switch {
	case w.layout == distributed:
		s.args = append(s.args, "--node-deployment", "--feature-gates=CSIVolumeGroupSnapshot=false")
		s.env = append(s.env, fieldEnv("NODE_NAME", "spec.nodeName"))
		s.note = "snapshot-controller must run with --enable-distributed-snapshotting."
		if w.f.groups() {
			s.note += "\nThe driver makes group snapshots, but a snapshotter of one node cannot: its contents carry no node."
		}
	case w.f.groups():
		s.cluster = append(s.cluster,
			rule{groups, []string{"volumegroupsnapshotclasses"}, read},
			rule{groups, []string{"volumegroupsnapshotcontents"}, []string{"get", "list", "watch", "update", "patch"}},
			rule{groups, []string{"volumegroupsnapshotcontents/status"}, []string{"update", "patch"}})
	default:
		s.args = append(s.args, "--feature-gates=CSIVolumeGroupSnapshot=false")
	}
	if w.o.Secrets {
		s.cluster = append(s.cluster, secrets)
	}
	return s
}
