// Package luks is what backends with devices have in common of encrypted volumes:
// the parameter, the secrets, and what encryption takes of a volume. The engine does
// the rest.
package luks

import (
	"fmt"

	"github.com/csikit/csikit/backends"
)

// Param asks for a volume whose device holds LUKS; the engine makes it.
const Param = "encrypted"

// The node-stage secrets of an encrypted volume.
const (
	SecretKey         = "encryptionKey"
	SecretPreviousKey = "previousEncryptionKey"
)

// header is what LUKS takes of the device, least what it is useful for besides.
const (
	header = 16 << 20
	least  = 4 << 20
)

// Parameter as csikit and users know it.
func Parameter() backends.Parameter {
	return backends.Parameter{
		Name: Param, Values: []string{"true", "false"}, Default: "false",
		Doc: "true: LUKS, with the node-stage secret encryptionKey (and previousEncryptionKey, after a change)",
	}
}

// Parse reads the parameter.
func Parse(v string) (bool, error) {
	if v != "true" && v != "false" {
		return false, fmt.Errorf("%w: parameter encrypted %q: want true or false", backends.ErrInvalid, v)
	}
	return v == "true", nil
}

// LeastSize of a volume that is used like this.
func LeastSize(c backends.Capability, encrypted bool) int64 {
	if !encrypted {
		return c.LeastSize()
	}
	return max(c.LeastSize(), least) + header
}

// CheckSizes refuses a size that the mkfs of one of the capabilities would refuse
// later, on the node, where nobody can help it any more.
func CheckSizes(req backends.CheckVolumeRequest, encrypted bool) error {
	size := req.Size
	if req.Volume != nil {
		size = req.Volume.Capacity
	}
	for _, c := range req.Capabilities {
		if least := LeastSize(c, encrypted); size > 0 && size < least {
			return fmt.Errorf("%w: %d bytes: mkfs.%s makes nothing below %d", backends.ErrOutOfRange, size, c.FSType, least)
		}
	}
	return nil
}

// Encryption is what the engine is told of an encrypted volume.
func Encryption(id string, s backends.Secrets) (*backends.Encryption, error) {
	key, _ := s.Lookup(SecretKey)
	if key == "" {
		return nil, fmt.Errorf("%w: volume %s is encrypted, and the node-stage secrets have no %s", backends.ErrUnauthenticated, id, SecretKey)
	}
	previous, _ := s.Lookup(SecretPreviousKey)
	return &backends.Encryption{Key: backends.NewSecret(key), PreviousKey: backends.NewSecret(previous)}, nil
}
