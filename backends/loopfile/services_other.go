//go:build !linux

package loopfile

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"time"

	"github.com/csikit/csikit/backends"
)

// Data services are Linux's.
func needLinux(what string) error {
	return fmt.Errorf("%w: %s on %s", backends.ErrUnsupported, what, runtime.GOOS)
}

func loopsNamed(string) ([]string, error) { return nil, needLinux("loop devices") }

func (p *pool) stampNow(ctx context.Context, f *os.File) (stamp, error) { return settled(ctx, f) }

func (p *pool) reflinks() bool {
	p.tryReflink.Do(func() { p.canReflink = false })
	return p.canReflink
}

func copySparse(context.Context, *os.File, *os.File, int64, checkpoint) error {
	return needLinux("copies")
}

func reserve(context.Context, *os.File, *os.File) error { return needLinux("copies") }

func changeTime(os.FileInfo) time.Time { return time.Time{} }

type extent struct {
	Off, Len, Phys int64
	Flags          uint32
}

const (
	extentUnwritten = 0x800
	extentShared    = 0x2000
	extentVague     = 0x2
)

func extents(*os.File, int64, bool) iter.Seq2[extent, error] {
	return func(yield func(extent, error) bool) { yield(extent{}, errors.ErrUnsupported) }
}

func replayXFS(context.Context, *os.File, string) error { return needLinux("xfs") }
