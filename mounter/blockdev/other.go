//go:build !linux

package blockdev

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/csikit/csikit/backends"
)

func unsupported() error {
	return fmt.Errorf("block devices on %s: %w", runtime.GOOS, backends.ErrUnsupported)
}

// Open needs Linux.
func Open(context.Context, string, bool) (*Device, error) { return nil, unsupported() }

// Verify needs Linux.
func (d *Device) Verify(context.Context, backends.Identity) error { return unsupported() }

// Size needs Linux.
func (d *Device) Size() (int64, error) { return 0, unsupported() }

// DiskSeq needs Linux.
func (d *Device) DiskSeq() (uint64, error) { return 0, unsupported() }

// ReadOnly needs Linux.
func (d *Device) ReadOnly() (bool, error) { return false, unsupported() }

// Claimed reports whether somebody has the device exclusively.
func (d *Device) Claimed() (bool, error) { return false, unsupported() }

// SetReadOnly needs Linux.
func (d *Device) SetReadOnly(bool) error { return unsupported() }

// Probe needs Linux.
func (d *Device) Probe(context.Context) (Content, error) { return Content{}, unsupported() }

// ReadEnds needs Linux.
func (d *Device) ReadEnds(context.Context) error { return unsupported() }

// NeedsReplay needs Linux.
func (d *Device) NeedsReplay(context.Context, Content) (bool, error) { return false, unsupported() }

// Relate needs Linux.
func (d *Device) Relate(uint64) (Relation, error) { return Unrelated, unsupported() }

// AttachLoop needs Linux.
func AttachLoop(context.Context, *os.File, AttachOptions) (*Loop, error) { return nil, unsupported() }

// AttachTemporary needs Linux.
func AttachTemporary(context.Context, *os.File, AttachOptions) (*Device, error) {
	return nil, unsupported()
}

// LoopOf needs Linux.
func LoopOf(uint64, uint64) ([]Loop, error) { return nil, unsupported() }

// LoopIs needs Linux.
func LoopIs(string, uint64, uint64) (bool, error) { return false, unsupported() }

// DetachLoop needs Linux.
func DetachLoop(context.Context, string, uint64, uint64) error { return unsupported() }

// ResizeLoop needs Linux.
func ResizeLoop(string, uint64, uint64) error { return unsupported() }
