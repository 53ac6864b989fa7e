//go:build !linux

package mnt

import (
	"fmt"
	"os"
	"runtime"

	"github.com/csikit/csikit/backends"
)

func unsupported() error {
	return fmt.Errorf("%w: mounts on %s", backends.ErrUnsupported, runtime.GOOS)
}

// IsMountPoint needs Linux.
func IsMountPoint(path string) (bool, error) { return false, unsupported() }

// ID needs Linux.
func ID(path string) (uint64, error) { return 0, unsupported() }

// List needs Linux.
func List() ([]Info, error) { return nil, unsupported() }

// At needs Linux.
func At(path string) ([]Info, error) { return nil, unsupported() }

// OfDevice needs Linux.
func OfDevice(dev uint64) ([]Info, error) { return nil, unsupported() }

// Propagation needs Linux.
func Propagation(path string) (shared bool, err error) { return false, unsupported() }

// Mount needs Linux.
func Mount(source, fstype, target string, o Options) error { return unsupported() }

// Bind needs Linux.
func Bind(source, target string, o BindOptions) error { return unsupported() }

// BindFD needs Linux.
func BindFD(source *os.File, target string, o BindOptions) error { return unsupported() }

// OpenAside needs Linux.
func OpenAside(path string) (*os.File, error) { return nil, unsupported() }

// SetReadOnly needs Linux.
func SetReadOnly(target string, ro bool) error { return unsupported() }

// Remount needs Linux.
func Remount(target string, bind bool, flags []string) error { return unsupported() }

// Unmount needs Linux.
func Unmount(target string) (was bool, err error) { return false, unsupported() }

// Force needs Linux.
func Force(target string) (was bool, err error) { return false, unsupported() }

// Detach needs Linux.
func Detach(target string) (was bool, err error) { return false, unsupported() }

// Unwind needs Linux.
func Unwind(target string) (n int, err error) { return 0, unsupported() }

// Figures needs Linux.
func Figures(f *os.File) (backends.VolumeStats, error) { return backends.VolumeStats{}, unsupported() }

// GiveToGroup needs Linux.
func GiveToGroup(d *os.File, gid int) error { return unsupported() }

// FindUsers needs Linux.
func FindUsers(dev uint64) []string { return nil }
