package backends

// LeastSize is how many bytes a device needs before the mkfs of what is asked for
// makes anything of it; 0 for a raw device, and where a few blocks do.
func (c Capability) LeastSize() int64 {
	switch {
	case c.Block:
		return 0
	case c.FSType == "xfs":
		return 300 << 20
	case c.FSType == "btrfs":
		return 109 << 20
	default:
		return 0
	}
}
