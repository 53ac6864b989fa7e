//go:build !linux

package nfs

import (
	"fmt"

	"github.com/csikit/csikit/backends"
)

// Project quota is Linux's.
func (s *site) setProject(*marker, ...string) error { return s.limitProject(nil) }

func (s *site) limitProject(*marker) error {
	return fmt.Errorf("%w: project quota", backends.ErrUnsupported)
}

func (s *site) dropProject(*marker) error { return nil }
