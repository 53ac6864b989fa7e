package backends

// IDMap says as what users and groups the owners of files in a volume appear on the
// node: Count numbers from Volume on, as the volume stores them, are those from Node
// on. What no IDMap speaks of belongs to nobody there, and nobody can make a file as
// such a user.
//
// It is for a volume whose owners do not fit the node's, as one that was filled by a
// container with a user namespace of its own. Kubernetes maps the volumes of pods
// with user namespaces (hostUsers: false) by itself, and cannot map one again that is
// mapped already.
type IDMap struct{ Volume, Node, Count uint32 }
