//go:build !linux

package command

import (
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
)

func secretFile(string) (*os.File, error) {
	return nil, fmt.Errorf("%w: files of their own for secrets need Linux", backends.ErrUnsupported)
}
