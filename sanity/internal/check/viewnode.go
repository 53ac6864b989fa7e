package check

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
)

func (v view) nodeInfo(r *csi.NodeGetInfoResponse) {
	if r.GetNodeId() == "" {
		v.bad("node", "NI-02 GEN-16", "no node_id")
	}
	if r.GetMaxVolumesPerNode() < 0 {
		v.bad("node", "NI-04", "max_volumes_per_node is %d", r.GetMaxVolumesPerNode())
	}
	if r.GetAccessibleTopology() == nil {
		return
	}
	if !v.facts.Has("plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS") {
		v.bad("topology", "NI-05", "accessible_topology without VOLUME_ACCESSIBILITY_CONSTRAINTS")
	}
	v.topology(r.GetAccessibleTopology(), "NI")
}

func (v view) usage(r *csi.NodeGetVolumeStatsResponse) {
	if len(r.GetUsage()) == 0 {
		v.note("H-31/node", violation{clauses: "NG-05", warn: true, text: v.method + ": no usage: kubelet takes that for an error"})
	}
	for _, u := range r.GetUsage() {
		if u.GetUnit() == csi.VolumeUsage_UNKNOWN || u.GetTotal() < 0 || u.GetAvailable() < 0 || u.GetUsed() < 0 {
			v.bad("node", "NG-05", "usage has no unit, or is below zero: %v", u)
		}
		if u.GetTotal() == 0 && u.GetUnit() == csi.VolumeUsage_BYTES {
			v.bad("node", "NG-05", "usage has no total")
		}
	}
}

func (v view) health(h *csi.VolumeHealth, id, clause string) {
	if h == nil {
		v.bad("health", clause+" GEN-16", "no volume_health")
		return
	}
	if h.GetVolumeId() == "" || id != "" && h.GetVolumeId() != id {
		v.bad("health", "LH-08", "health of volume %q, and %q was asked for", h.GetVolumeId(), id)
	}
	seen := map[string]bool{}
	for _, s := range h.GetHealthStatuses() {
		key := fmt.Sprintf("%v %q", s.GetStatus(), s.GetReason())
		if s.GetStatus() == 0 || s.GetReason() == "" {
			v.bad("health", "LH-08", "an entry without status or reason: %s", key)
		}
		if seen[key] {
			v.bad("health", "LH-07 NH-05", "%s is there twice", key)
		}
		seen[key] = true
	}
}

func (v view) storageHealth(r *csi.NodeGetStorageHealthResponse) {
	seen := map[string]bool{}
	for _, s := range r.GetBackendHealth() {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.GetVolumeCapability())
		key := fmt.Sprintf("%v %q %x %v", s.GetStatus(), s.GetReason(), b, err)
		if s.GetStatus() == 0 || s.GetReason() == "" {
			v.bad("health", "NT-02", "an entry without status or reason")
		}
		if seen[key] {
			v.bad("health", "NT-03", "%v %q is there twice", s.GetStatus(), s.GetReason())
		}
		seen[key] = true
	}
}

var (
	topologyName   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	topologyPrefix = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

// topology looks at the segments of an answer. of is the family of clauses.
func (v view) topology(t *csi.Topology, of string) {
	key, prefix, unique, value := "CV-46", "CV-47", "CV-48", "CV-49"
	if of == "NI" {
		key, prefix, unique, value = "NI-06 CV-46", "NI-06 CV-47", "NI-06 CV-48", "NI-06 CV-49"
	}
	lower := map[string]bool{}
	for k, val := range t.GetSegments() {
		p, name, ok := strings.Cut(k, "/")
		if !ok {
			p, name = "", k
		}
		if !topologyName.MatchString(name) || ok && (len(p) > 63 || !topologyPrefix.MatchString(p)) {
			v.bad("topology", key, "key %q is not well formed", k)
		}
		if val != "" && !topologyName.MatchString(val) {
			v.bad("topology", value, "value %q of key %q is not well formed", val, k)
		}
		if lower[strings.ToLower(k)] {
			v.bad("topology", unique, "key %q differs from another in case only", k)
		}
		lower[strings.ToLower(k)] = true
		if v.prefix == "" {
			v.prefix = p
		} else if ok && v.prefix != p {
			v.bad("topology", prefix, "key %q, and the prefix was %q before", k, v.prefix)
		}
	}
}
