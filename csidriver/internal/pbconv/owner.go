package pbconv

import (
	"strings"

	"github.com/csikit/csikit/backends"
)

// The keys that Kubernetes adds to parameters, volume_context and secrets.
const (
	coPrefix      = "csi.storage.k8s.io/"
	provisionerID = "storage.kubernetes.io/csiProvisionerIdentity"

	// TokensKey holds the service account tokens of a pod: a secret, wherever
	// it stands.
	TokensKey = coPrefix + "serviceAccount.tokens"
	// ephemeralKey says "true" when the volume is an inline one of a pod.
	ephemeralKey = coPrefix + "ephemeral"
)

// IsCOKey tells the keys that a CO adds from those that the user or the driver
// wrote.
func IsCOKey(key string) bool {
	return strings.HasPrefix(key, coPrefix) || key == provisionerID
}

// Split separates what the CO added to parameters or to a volume context from
// the rest. Keys of the CO that the contract does not know are dropped. The maps
// are copies.
func Split(in map[string]string) (rest map[string]string, owner backends.Owner) {
	for k, v := range in {
		if IsCOKey(k) {
			setOwner(&owner, strings.TrimPrefix(k, coPrefix), v)
			continue
		}
		if rest == nil {
			rest = make(map[string]string, len(in))
		}
		rest[k] = v
	}
	return rest, owner
}

func setOwner(o *backends.Owner, key, value string) {
	switch key {
	case "pvc/name":
		o.PVC = value
	case "pvc/namespace":
		o.PVCNamespace = value
	case "pv/name":
		o.PV = value
	case "volumesnapshot/name":
		o.Snapshot = value
	case "volumesnapshot/namespace":
		o.SnapshotNamespace = value
	case "volumesnapshotcontent/name":
		o.SnapshotContent = value
	case "pod.name":
		o.Pod = value
	case "pod.namespace":
		o.PodNamespace = value
	case "pod.uid":
		o.PodUID = value
	case "serviceAccount.name":
		o.ServiceAccount = value
	case "serviceAccount.tokens":
		o.Tokens = backends.NewSecret(value)
	}
}

// Secrets hides the secrets of a request. Kubernetes may put the service account
// tokens there (serviceAccountTokenInSecrets): they go to owner, where a backend
// finds them either way. owner may be nil.
func Secrets(in map[string]string, owner *backends.Owner) backends.Secrets {
	tokens, ok := in[TokensKey]
	if !ok {
		return backends.NewSecrets(in)
	}
	if owner != nil {
		owner.Tokens = backends.NewSecret(tokens)
	}
	rest := make(map[string]string, len(in))
	for k, v := range in {
		if k != TokensKey {
			rest[k] = v
		}
	}
	return backends.NewSecrets(rest)
}
