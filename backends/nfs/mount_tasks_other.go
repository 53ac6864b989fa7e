//go:build !linux

package nfs

import (
	"fmt"

	"github.com/csikit/csikit/backends"
)

func nodeTasks() map[string]task { return nil }

func (s *shareTask) bring() (root string, err error) {
	if s.Dir == "" {
		return "", fmt.Errorf("%w: NFS is mounted on Linux only", backends.ErrUnsupported)
	}
	return s.Dir, nil
}
