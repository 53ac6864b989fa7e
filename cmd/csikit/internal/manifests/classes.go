package manifests

import (
	"maps"
	"strings"
)

// fsTypeKey is external-provisioner's.
const fsTypeKey = "csi.storage.k8s.io/fstype"

// namesSecrets tells whether the parameters of a class name a secret that a sidecar
// reads: kubelet reads those of nodes.
func namesSecrets(parameters map[string]string) bool {
	for k := range parameters {
		call, ok := strings.CutPrefix(k, "csi.storage.k8s.io/")
		if ok && strings.HasSuffix(call, "-secret-name") && !strings.HasPrefix(call, "node-") {
			return true
		}
	}
	return false
}

// classes are what users choose from.
func (w *writer) classes() []object {
	var all []object
	if w.f.provisions() {
		types := w.o.FSTypes
		if len(types) == 0 {
			types = []string{""}
		}
		for _, fs := range types {
			all = append(all, w.storageClass(fs))
		}
	}
	if w.f.snapshots() {
		all = append(all, w.snapshotClass("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass"))
	}
	if w.f.groups() && w.layout != distributed {
		all = append(all, w.snapshotClass("groupsnapshot.storage.k8s.io/v1", "VolumeGroupSnapshotClass"))
	}
	if len(w.o.Mutable) > 0 {
		all = append(all, object{
			{"apiVersion", "storage.k8s.io/v1"},
			{"kind", "VolumeAttributesClass"},
			{"metadata", w.meta(w.base, false)},
			{"driverName", w.f.Name},
			{"parameters", pairs(w.o.Mutable)},
		})
	}
	return all
}

func (w *writer) storageClass(fs string) object {
	name, parameters := w.base, maps.Clone(w.o.Parameters)
	if fs != "" {
		name += "-" + fs
		if parameters == nil {
			parameters = map[string]string{}
		}
		parameters[fsTypeKey] = fs
	}
	binding := "Immediate"
	if w.f.topology() {
		binding = "WaitForFirstConsumer" // the scheduler chooses a node that has the space
	}
	return object{
		{"apiVersion", "storage.k8s.io/v1"},
		{"kind", "StorageClass"},
		{"metadata", w.meta(name, false)},
		{"provisioner", w.f.Name},
		{"parameters", only(len(parameters) > 0, pairs(parameters))},
		{"reclaimPolicy", "Delete"},
		{"volumeBindingMode", binding},
		{"allowVolumeExpansion", w.f.expands()},
	}
}

func (w *writer) snapshotClass(version, kind string) object {
	return object{
		{"apiVersion", version},
		{"kind", kind},
		{"metadata", w.meta(w.base, false)},
		{"driver", w.f.Name},
		{"deletionPolicy", "Delete"},
	}
}
