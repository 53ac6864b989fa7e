package sparse

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

const mib = 1 << 20

// file is size bytes of data.
func file(t *testing.T, name string, size int) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i%250) + 1
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestSegmentOfOneCutShort: beyond its new end there is nothing, at the end that the file
// has now.
func TestSegmentOfOneCutShort(t *testing.T) {
	f := file(t, "f", 4*mib)
	if start, end, err := Segment(f, mib); err != nil || start != mib || end != 4*mib {
		t.Errorf("%d to %d, %v", start, end, err)
	}
	if err := f.Truncate(100); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{100, mib, 4 * mib} {
		if start, end, err := Segment(f, off); err != nil || start != 100 || end != 100 {
			t.Errorf("from %d: %d to %d, %v", off, start, end, err)
		}
	}
}

// TestCopyOfOneCutShort ends, and does not say that it is whole, wherever the cut is.
func TestCopyOfOneCutShort(t *testing.T) {
	for _, left := range []int64{0, 100, mib, mib + 1, 2*mib - 1} {
		src, dst := file(t, "src", 3*mib), file(t, "dst", 0)
		cut := false
		err := Copy(t.Context(), dst, src, 0, func(_, _ int64) error {
			if cut {
				return nil
			}
			cut = true
			return src.Truncate(left)
		})
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut to %d bytes: %v", left, err)
		}
	}
	// Cut between two of its ranges.
	src, dst := file(t, "src", mib), file(t, "dst", 0)
	if _, err := src.WriteAt([]byte("behind a hole"), 4*mib); err != nil {
		t.Fatal(err)
	}
	err := Copy(t.Context(), dst, src, 0, func(done, _ int64) error {
		if done < mib {
			return nil
		}
		return src.Truncate(2 * mib)
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut between two ranges: %v", err)
	}
}
