package mnt

import (
	"bytes"
	"os"
)

// hasSELinux: its own file system is registered only where it was turned on at boot.
func hasSELinux() bool {
	b, err := os.ReadFile("/proc/filesystems")
	return err != nil || bytes.Contains(b, []byte("selinuxfs"))
}
