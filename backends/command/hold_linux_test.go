package command

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// whileItRuns is the standard input of a tool: it is read when the tool has
// started, and ends when f has returned.
type whileItRuns func()

func (f whileItRuns) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// TestHold: a lock lasts as long as the tool that was given the file, whatever
// becomes of the one who took it.
func TestHold(t *testing.T) {
	name := filepath.Join(t.TempDir(), "locked")
	lock, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() //nolint:errcheck // opened for reading
	try := func() error { return unix.Flock(int(other.Fd()), unix.LOCK_SH|unix.LOCK_NB) }
	during := whileItRuns(func() {
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
		if err := try(); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("while the tool runs: %v", err)
		}
	})
	if _, err := New(nil).Run(t.Context(), Cmd{Path: "cat", Stdin: during, Hold: []*os.File{lock}}); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != nil {
		t.Errorf("after it ended: %v", err)
	}
}
