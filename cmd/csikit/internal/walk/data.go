package walk

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const dataSize = 8 << 20

// data is what a pod wrote, and where it can be seen.
type data struct {
	written bool
	sum     [sha256.Size]byte
	seen    map[string]bool // by pod: its volume is here
}

// lookAt looks whether the kernel has what NodePublishVolume says is done.
func (w *Walk) lookAt(pod string) error {
	if w.o.NoData {
		return nil
	}
	path := w.path(pod)
	mounts, err := w.seeStack(path)
	if err != nil {
		return err
	}
	seen := mounts == 1
	if w.o.Block {
		seen, err = isDevice(path)
		if err != nil {
			return err
		}
	}
	if w.data.seen == nil {
		w.data.seen = map[string]bool{}
	}
	w.data.seen[pod] = seen
	switch {
	case !seen && w.o.SameHost:
		return fmt.Errorf("NodePublishVolume answers OK, and there is no volume at %s", path)
	case !seen:
		w.See("not to be seen here: the driver's node is elsewhere, no data is written")
	case w.o.Block:
		w.See("a block device is at %s", path)
	}
	return nil
}

// seeStack prints the mounts at a path and insists that they are no stack.
func (w *Walk) seeStack(path string) (int, error) {
	lines, err := mountLines(path)
	if err != nil {
		return 0, err
	}
	w.See("%s", strings.Join(lines, "\n"))
	if len(lines) > 1 {
		return len(lines), fmt.Errorf("%d mounts at %s, want 1", len(lines), path)
	}
	return len(lines), nil
}

func isDevice(path string) (bool, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return st.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice, nil
}

// file is where a pod has its data: in a file, or at the beginning of the device.
func (w *Walk) file(pod string) string {
	if w.o.Block {
		return w.path(pod)
	}
	return filepath.Join(w.path(pod), "data")
}

// write writes through a pod's path.
func (w *Walk) write(pod string) error {
	if !w.data.seen[pod] {
		return nil
	}
	b := make([]byte, dataSize)
	_, _ = rand.Read(b) // never fails
	f, err := os.OpenFile(w.file(pod), os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	w.data.written, w.data.sum = true, sha256.Sum256(b)
	w.See("%s wrote data: %s, sha256 %x...", pod, mib(dataSize), w.data.sum[:8])
	return nil
}

// Compare reads through a pod's path and compares with what was written.
func (w *Walk) Compare(pod string) error {
	if !w.data.written || !w.data.seen[pod] {
		return nil
	}
	f, err := os.Open(w.file(pod))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, dataSize))
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != w.data.sum {
		return fmt.Errorf("%s reads other data than was written", pod)
	}
	w.See("%s reads the same %s back", pod, mib(int64(len(b))))
	return nil
}

// refusesWrites wants a pod's file system to be read-only.
func (w *Walk) refusesWrites(pod string) error {
	if !w.data.seen[pod] {
		return nil
	}
	err := os.WriteFile(w.file(pod), []byte("x"), 0o640)
	if !errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("a write through the read-only publish did not fail with %q: %w", syscall.EROFS.Error(), err)
	}
	w.See("%s cannot write: %v", pod, err)
	return nil
}

// sizeOf is the size of what a pod has, 0 where it cannot be seen.
func (w *Walk) sizeOf(pod string) (int64, error) {
	if !w.data.seen[pod] {
		return 0, nil
	}
	if !w.o.Block {
		return fileSystemSize(w.path(pod))
	}
	f, err := os.Open(w.path(pod))
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	return f.Seek(0, io.SeekEnd)
}

func (w *Walk) compareAll(context.Context) error {
	for _, pod := range w.published {
		if err := w.Compare(pod); err != nil {
			return err
		}
	}
	return nil
}
