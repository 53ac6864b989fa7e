//go:build !linux

package csiclient

import "errors"

// SameHost is no: only Linux tells.
func SameHost(string) bool { return false }

// Peer is not to be found out here.
func Peer(string) (pid int32, err error) {
	return 0, errors.ErrUnsupported
}
