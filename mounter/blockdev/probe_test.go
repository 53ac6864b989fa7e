package blockdev

import (
	"bytes"
	"context"
	"testing"
)

func FuzzProbe(f *testing.F) {
	f.Add(int64(1<<20), int64(0), []byte("XFSB"))
	f.Add(int64(70<<20), int64(64<<20+64), []byte("_BHRfS_M"))
	f.Add(int64(512), int64(510), []byte("\x55\xaa"))
	for i := range signatures {
		s := &signatures[i]
		for _, off := range s.places(5 << 20) {
			b := append(make([]byte, s.magicOff), s.magic...)
			f.Add(int64(5<<20), off, append(b, bytes.Repeat([]byte{0xff}, 300)...))
		}
	}
	f.Fuzz(func(t *testing.T, size, off int64, data []byte) {
		if size <= 0 || size > 1<<40 || off < 0 {
			t.Skip()
		}
		d := &sparse{size: size, off: off, data: data}
		c, err := probe(context.Background(), d, size)
		if err != nil {
			t.Fatal(err)
		}
		read := false
		for _, p := range plan(size) {
			for i, b := range data {
				read = read || b != 0 && p.holds(off+int64(i))
			}
		}
		if read == (c.State == Blank) || c.State == 0 {
			t.Fatalf("%v, and there is a byte that is not zero: %t", c, read)
		}
	})
}

// sparse is a disk of zeros but for one piece.
type sparse struct {
	size, off int64
	data      []byte
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for i, b := range s.data {
		if at := s.off + int64(i) - off; at >= 0 && at < int64(len(p)) && s.off+int64(i) < s.size {
			p[at] = b
		}
	}
	return len(p), nil
}
