// Package mountapi lets the tests of this module behave as on an older kernel.
// Only tests call [Hide]; without it nothing is hidden.
package mountapi

import "sync/atomic"

// Part is a part of the kernel's interface that older kernels lack.
type Part uint32

// The parts that can be hidden.
const (
	MountRoot Part = 1 << iota // statx: STATX_ATTR_MOUNT_ROOT and the mount ids (5.8)
	Openat2                    // openat2 with RESOLVE_NO_XDEV (5.6)
	Tree                       // open_tree, mount_setattr, move_mount (5.2, 5.12)
	Context                    // fsopen, fsconfig, fsmount (5.2)
	Statmount                  // listmount and statmount with all that is used of it (6.8, 6.13)
	UniqueID                   // statx: mount ids that are not used again (6.8)

	None Part = 0
	All  Part = MountRoot | Openat2 | Tree | Context | Statmount | UniqueID
)

var hidden atomic.Uint32

// Hide makes package mnt behave as if the kernel lacked these parts, for the
// whole process, until restore is called.
func Hide(p Part) (restore func()) {
	old := hidden.Swap(uint32(p))
	return func() { hidden.Store(old) }
}

// Has reports whether all of these parts may be used.
func Has(p Part) bool { return Part(hidden.Load())&p == 0 }
