package mounter

// liveFinder is a Kernel that knows the file systems of all namespaces.
type liveFinder interface {
	// Live reports whether a file system of this type is mounted from the device,
	// in whatever namespace.
	Live(dev uint64, fsType string) bool
}

// leftMounted reports whether the device is held by the file system that this engine
// mounted from it, in this boot, and has unmounted: a container has a copy of that
// mount in a namespace of its own, which ends with the container. Unstage waits for
// that, but the next pod of the node need not: it gets the same file system, which the
// kernel has in memory once, however often it is mounted. As long as it is mounted no
// mkfs and no fsck can have the device.
func (s *staging) leftMounted(d Device) bool {
	k, ok := s.kernel.(liveFinder)
	return ok && s.rec.Mounted != nil && s.done && s.rec.sameInstance(s.boot) && k.Live(d.Num(), s.rec.Mounted.FSType)
}
