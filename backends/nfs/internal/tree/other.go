//go:build !linux

package tree

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// Root is for Linux.
type Root struct{}

// Info is for Linux.
type Info struct {
	Ino      uint64
	Dev      uint64
	Mode     uint32
	UID, GID uint32
	Size     int64
	Blocks   int64
}

// Dir is for Linux.
func (Info) Dir() bool { return false }

// Regular is for Linux.
func (Info) Regular() bool { return false }

// Changed is for Linux.
func (Info) Changed() time.Time { return time.Time{} }

var errLinux = errors.ErrUnsupported

// Open is for Linux.
func Open(string) (*Root, error) { return nil, errLinux }

// Lock is for Linux.
func (*Root) Lock(string) (func(), error) { return nil, errLinux }

// Close is for Linux.
func (*Root) Close() error { return nil }

// Name is for Linux.
func (*Root) Name() string { return "" }

// Sub is for Linux.
func (*Root) Sub(string) (*Root, error) { return nil, errLinux }

// SubMounted is for Linux.
func (*Root) SubMounted(string) (*Root, error) { return nil, errLinux }

// Stat is for Linux.
func (*Root) Stat() (Info, error) { return Info{}, errLinux }

// Lstat is for Linux.
func (*Root) Lstat(string) (Info, error) { return Info{}, errLinux }

// Mkdir is for Linux.
func (*Root) Mkdir(string, fs.FileMode) error { return errLinux }

// Rmdir is for Linux.
func (*Root) Rmdir(string) error { return errLinux }

// Unlink is for Linux.
func (*Root) Unlink(string) error { return errLinux }

// Link is for Linux.
func (*Root) Link(_, _ string) error { return errLinux }

// Replace is for Linux.
func (*Root) Replace(_, _ string) error { return errLinux }

// Rename is for Linux.
func (*Root) Rename(_, _ string) error { return errLinux }

// ReadFile is for Linux.
func (*Root) ReadFile(string, int64) ([]byte, error) { return nil, errLinux }

// Create is for Linux.
func (*Root) Create(string, []byte, fs.FileMode) error { return errLinux }

// Sync is for Linux.
func (*Root) Sync(string) error { return errLinux }

// Names is for Linux.
func (*Root) Names(string) ([]string, error) { return nil, errLinux }

// Free is for Linux.
func (*Root) Free() (total, available int64, err error) { return 0, 0, errLinux }

// SetOwner is for Linux.
func (*Root) SetOwner(string, int, int, int64) error { return errLinux }

// File is for Linux.
func (*Root) File(string) (*os.File, error) { return nil, errLinux }

// Usage is for Linux.
func (*Root) Usage(context.Context, func(string)) (int64, error) { return 0, errLinux }

// Removal is for Linux.
type Removal struct {
	Removed int64
	Left    string
}

// Clear is for Linux.
func (*Root) Clear(context.Context, func(string)) (Removal, error) { return Removal{}, errLinux }

// ErrChanged is for Linux.
var ErrChanged = errors.New("was changed while it was copied")

// ErrMount is for Linux.
var ErrMount = errors.New("another file system is mounted there")

// CopyOptions is for Linux.
type CopyOptions struct {
	Workers  int
	Progress func(string)
	Step     func(string)
	Still    time.Time
}

// Copied is for Linux.
type Copied struct{ Files, Bytes, Shared, Kept, Unsteady int64 }

// Copy is for Linux.
func Copy(context.Context, *Root, *Root, *Root, CopyOptions) (Copied, error) {
	return Copied{}, errLinux
}
