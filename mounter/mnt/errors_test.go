package mnt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	mountutils "k8s.io/mount-utils"
)

// The classes are those of mount-utils, which sees only unwrapped errors.
func TestIsCorrupted(t *testing.T) {
	for e := syscall.Errno(1); e < 134; e++ {
		err := &os.PathError{Op: "stat", Path: "/p", Err: e}
		if got, want := IsCorrupted(err), mountutils.IsCorruptedMnt(err); got != want {
			t.Errorf("IsCorrupted(%v) = %v, mount-utils says %v", err, got, want)
		}
		if IsCorrupted(err) != IsCorrupted(fmt.Errorf("x: %w", err)) {
			t.Errorf("wrapped: %v", err)
		}
	}
	for _, err := range []error{nil, errors.New("x"), fs.ErrNotExist} {
		if IsCorrupted(err) {
			t.Errorf("IsCorrupted(%v)", err)
		}
	}
}
