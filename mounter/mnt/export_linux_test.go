package mnt

import "golang.org/x/sys/unix"

// HasStatmount reports whether this kernel's statmount gives all that is needed.
func HasStatmount() bool {
	id, err := uniqueID(unix.AT_FDCWD, "/proc")
	if err != nil {
		return false
	}
	_, _, err = infoOf(id)
	return err == nil
}
