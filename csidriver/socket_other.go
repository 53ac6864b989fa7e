//go:build !linux

package csidriver

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// maxSocketName is the longest name that fits into sockaddr_un.
const maxSocketName = 103

func socketName(_ *os.File, path string) (string, error) {
	if len(path) > maxSocketName {
		return "", fmt.Errorf("the path of a socket has at most %d bytes here, this one has %d", maxSocketName, len(path))
	}
	return path, nil
}

// bornWith cannot do here what it does on Linux: the mode of a socket that has
// no name yet is not inherited. The mode is set after bind.
func bornWith(fs.FileMode) func(network, address string, c syscall.RawConn) error { return nil }
