//go:build !linux

package fusehost

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

type (
	prepared struct{}
	starter  struct{}
	process  struct{ pid int }
)

func newCommand(*backends.FUSE, *os.File) (*prepared, error) {
	return nil, fmt.Errorf("%w: FUSE servers are for Linux", backends.ErrUnsupported)
}

func (*starter) start(*prepared) (*process, error) { return nil, backends.ErrUnsupported }
func (*starter) close()                            {}

func (*process) reap()                                                   {}
func (*process) ended() bool                                             { return true }
func (*process) end(context.Context, time.Duration, time.Duration) error { return nil }
func (*process) status(id string) mounter.ServerStatus {
	return mounter.ServerStatus{ID: id, State: mounter.ServerUnknown}
}
