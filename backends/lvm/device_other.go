//go:build !linux

package lvm

import (
	"context"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
)

type none struct{}

func newKernel(*Options) kernel { return none{} }

func unsupported() error {
	return fmt.Errorf("%w: device-mapper is Linux's", backends.ErrUnsupported)
}

func (none) device(string) (string, error)          { return "", unsupported() }
func (none) busy(string) (bool, error)              { return false, unsupported() }
func (none) exclusive(string, string) (disk, error) { return nil, unsupported() }
func (none) readable(string, string) (disk, error)  { return nil, unsupported() }
func (none) writes(string) (uint64, error)          { return 0, unsupported() }
func (none) mountOf(context.Context, string) (*os.File, error) {
	return nil, unsupported()
}
func (none) message(string, string) error { return unsupported() }
func (none) metadataOf(string) (string, bool, error) {
	return "", false, unsupported()
}
func (none) suspended(string) ([]string, error) { return nil, unsupported() }
func (none) number(string) (string, error)      { return "", unsupported() }
