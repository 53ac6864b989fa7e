package csidriver

import (
	"context"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csikit/csikit/backends"
)

// identity serves the Identity service, which is the same in every process of
// the driver.
type identity struct {
	csi.UnimplementedIdentityServer
	*Driver
}

func (i *identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{
		Name:          i.cfg.Name,
		VendorVersion: i.cfg.Version,
		Manifest:      manifest(&i.cfg.Traits, i.features.controller.Attacher != nil),
	}, nil
}

func (i *identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: i.features.plugin()}, nil
}

func (i *identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	ready, err := i.health.ask(ctx)
	if err != nil {
		return nil, err
	}
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(ready)}, nil
}

// deploymentPrefix stands before what is no field of a CSIDriver object, and manifests
// are made from it.
const deploymentPrefix = "kubernetes.deployment/"

// nodeLocalKey says that each node provisions its own volumes.
const nodeLocalKey = deploymentPrefix + "nodeLocal"

// manifestPrefix stands before the fields of a CSIDriver object in
// GetPluginInfo.manifest, from which manifests are made.
const manifestPrefix = "kubernetes.csidriver/"

// manifest is what Kubernetes' CSIDriver object must say of this driver, by the
// names of its fields.
func manifest(t *backends.Traits, attach bool) map[string]string {
	k := &t.Kubernetes
	// kubelet says with the pod's names that a volume is ephemeral, or not at all.
	podInfo := k.PodInfo || t.Lifecycle&backends.Ephemeral != 0
	m := map[string]string{
		"attachRequired":       strconv.FormatBool(attach),
		"podInfoOnMount":       strconv.FormatBool(podInfo),
		"fsGroupPolicy":        k.FSGroupPolicy,
		"requiresRepublish":    strconv.FormatBool(k.Republish),
		"seLinuxMount":         strconv.FormatBool(k.SELinuxMount),
		"storageCapacity":      strconv.FormatBool(k.StorageCapacity),
		"tokenRequests":        strings.Join(k.TokenAudiences, ","),
		"volumeLifecycleModes": lifecycle(t.Lifecycle),
	}
	if k.FSGroupPolicy == "" {
		m["fsGroupPolicy"] = "ReadWriteOnceWithFSType"
	}
	out := make(map[string]string, len(m))
	for field, v := range m {
		if v != "" {
			out[manifestPrefix+field] = v
		}
	}
	for key, yes := range map[string]bool{
		nodeLocalKey:                              k.NodeLocal,
		deploymentPrefix + "hostNetwork":          k.HostNetwork,
		deploymentPrefix + "privilegedController": k.PrivilegedController,
	} {
		if yes {
			out[key] = "true"
		}
	}
	if len(t.FSTypes) > 0 {
		out[deploymentPrefix+"fsTypes"] = strings.Join(t.FSTypes, ",")
	}
	if len(k.HostPaths) > 0 {
		out[deploymentPrefix+"hostPaths"] = strings.Join(k.HostPaths, ",")
	}
	return out
}

func lifecycle(l backends.Lifecycle) string {
	var modes []string
	if l&backends.Persistent != 0 {
		modes = append(modes, "Persistent")
	}
	if l&backends.Ephemeral != 0 {
		modes = append(modes, "Ephemeral")
	}
	return strings.Join(modes, ",")
}
