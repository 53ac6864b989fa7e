package blockdev

// Relation says whether two device numbers lead to the same bytes.
type Relation uint8

// What can be known of two devices.
const (
	// Unrelated means that nothing says that they are one disk, and nothing that
	// they are two.
	Unrelated Relation = iota
	// Different means that they are two disks, or two parts of one.
	Different
	// Same means one disk under two numbers: two paths to it, a device and what
	// lies on top of it, two loop devices of one file.
	Same
)

// String is for messages.
func (r Relation) String() string {
	switch r {
	case Different:
		return "another disk"
	case Same:
		return "the same disk"
	default:
		return "a disk of which is not known whether it is another"
	}
}
