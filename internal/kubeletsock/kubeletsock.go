// Package kubeletsock has what kubelet demands of the sockets that it connects to: of a
// driver that registers itself, and of the objects that have one registered.
package kubeletsock

import "fmt"

// MaxPath is how long a path may be at which kubelet connects, in bytes: it has the room
// of sockaddr_un, and no way around it.
const MaxPath = 107

// Registry is kubelet's directory of plug-ins, below its own.
const Registry = "plugins_registry"

// Registration is the name of a driver's socket in Registry.
func Registration(driver string) string { return driver + "-reg.sock" }

// Connectable says why kubelet could not connect at a path.
func Connectable(path string) error {
	if len(path) > MaxPath {
		return fmt.Errorf("%s has %d bytes, kubelet connects to %d at most", path, len(path), MaxPath)
	}
	return nil
}
