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
	"slices"
	"strings"
	"syscall"
)

const dataSize = 8 << 20

// content is what a pod wrote: to a file, or to pieces of a device.
type content struct {
	label  string
	size   int64 // of a piece
	offset []int64
	sum    [sha256.Size]byte // of all pieces
}

// lookAt looks whether the kernel has what NodePublishVolume says is done.
func (v *Volume) lookAt(pod string) error {
	if v.o.NoData {
		return nil
	}
	path := v.path(pod)
	mounts, err := v.seeStack(path)
	if err != nil {
		return err
	}
	seen := mounts == 1
	if v.block {
		seen, err = isDevice(path)
		if err != nil {
			return err
		}
	}
	v.seen[pod] = seen
	switch {
	case !seen && v.o.SameHost:
		return fmt.Errorf("NodePublishVolume answers OK, and there is no volume at %s", path)
	case !seen:
		v.unseen = true
		v.See("not to be seen here: the driver's node is elsewhere, no data is written")
	case v.block:
		v.See("a block device is at %s", path)
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

// file is where a pod has its data: in a file, or on the device.
func (v *Volume) file(pod string) string {
	if v.block {
		return v.path(pod)
	}
	return filepath.Join(v.path(pod), "data")
}

// write writes something new through pod-1's path. What is written later to a
// volume goes to the same place.
func (v *Volume) write(label string) error {
	c := content{label: label, size: dataSize, offset: []int64{0}}
	if v.block && v.seen[pod1] {
		size, err := v.sizeOf(pod1)
		if err != nil {
			return err
		}
		c.size, c.offset = piecesOf(size)
	}
	return v.writeAt(c)
}

// piecesOf a device are what is written of it: its beginning, its end, and between.
func piecesOf(device int64) (size int64, offset []int64) {
	size = min(dataSize, device) / 4 &^ 4095
	return size, []int64{0, device / 3 &^ 4095, device / 3 * 2 &^ 4095, (device - size) &^ 4095}
}

func (v *Volume) writeAt(c content) error {
	if !v.seen[pod1] {
		return nil
	}
	f, err := os.OpenFile(v.file(pod1), os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	h, b := sha256.New(), make([]byte, c.size)
	for _, off := range c.offset {
		_, _ = rand.Read(b) // never fails
		_, _ = h.Write(b)   // nor does this
		if _, err = f.WriteAt(b, off); err != nil {
			break
		}
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	h.Sum(c.sum[:0])
	v.has = &c
	v.contents = append(v.contents, c)
	v.See("%s wrote data: %s, sha256 %x...", v.of(pod1), mib(c.size*int64(len(c.offset))), c.sum[:8])
	return nil
}

// of names a pod of the volume.
func (v *Volume) of(pod string) string {
	if v.alias == "" {
		return pod
	}
	return v.alias + "'s " + pod
}

// Compare reads through a pod's path and compares with what is to be there.
func (v *Volume) Compare(pod string) error {
	if v.has == nil || !v.seen[pod] {
		return nil
	}
	sum, err := v.read(pod, *v.has)
	if err != nil {
		return err
	}
	if sum == v.has.sum {
		v.See("%s reads the same %s back", v.of(pod), mib(v.has.size*int64(len(v.has.offset))))
		return nil
	}
	err = fmt.Errorf("%s reads other data than was written", v.of(pod))
	if i := slices.IndexFunc(v.contents, func(c content) bool { return c.sum == sum }); i >= 0 {
		err = fmt.Errorf("%w: not %s, but %s", err, v.has.label, v.contents[i].label)
	}
	return err
}

// read reads a content from the disk: what is in the page cache may be older.
func (v *Volume) read(pod string, c content) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(v.file(pod))
	if err != nil {
		return sum, err
	}
	defer f.Close() //nolint:errcheck // only read
	dropCache(f)
	h := sha256.New()
	for _, off := range c.offset {
		if _, err := io.Copy(h, io.NewSectionReader(f, off, c.size)); err != nil {
			return sum, err
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}

// refusesWrites wants what a pod has to be read-only.
func (v *Volume) refusesWrites(pod string) error {
	if !v.seen[pod] {
		return nil
	}
	err := tryToWrite(v.file(pod))
	refusals := []error{syscall.EROFS}
	if v.block {
		refusals = append(refusals, syscall.EACCES, syscall.EPERM)
	}
	if slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
		v.See("%s cannot write: %v", v.of(pod), err)
		return nil
	}
	return fmt.Errorf("a write through the read-only publish did not fail with %q: %w", syscall.EROFS.Error(), orOK(err))
}

// tryToWrite writes one byte to what is there; O_CREATE is no error of a device.
func tryToWrite(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("x"))
	return errors.Join(err, f.Sync(), f.Close())
}

// sizeOf is the size of what a pod has, 0 where it cannot be seen.
func (v *Volume) sizeOf(pod string) (int64, error) {
	if !v.seen[pod] {
		return 0, nil
	}
	if !v.block {
		return fileSystemSize(v.path(pod))
	}
	f, err := os.Open(v.path(pod))
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	return f.Seek(0, io.SeekEnd)
}

func (v *Volume) compareAll(context.Context) error {
	for _, pod := range v.published {
		if err := v.Compare(pod); err != nil {
			return err
		}
	}
	return nil
}
