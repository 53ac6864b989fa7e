package fsfreeze

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

// TestKept: the lock of a process that has died is free when its child has thawed,
// and not before; of one that lives, when it lets go.
func TestKept(t *testing.T) {
	testenv.Tool(t, "flock", "fsfreeze")
	path := filepath.Join(t.TempDir(), "lock")
	held, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	d, err := deadMan(dir, held)
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Close(); err != nil { // as with the end of the process
		t.Fatal(err)
	}
	next, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	if err := unix.Flock(int(next.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the next process has the lock before the child has thawed: %v", err)
	}
	if err := d.dismiss(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(next.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the lock is kept: %v", err)
	}
}
