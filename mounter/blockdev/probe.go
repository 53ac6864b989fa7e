package blockdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/csikit/csikit/backends"
)

const (
	edge      = 128 << 10 // read at the head, and at the tail
	pageSize  = 4 << 10   // the unit in which places in between are read
	mergeSpan = 16 << 10  // places closer than this are read in one go
)

// extent is a half-open range of bytes.
type extent struct{ lo, hi int64 }

func (e extent) holds(off int64) bool { return off >= e.lo && off < e.hi }

// hit is a signature that was found.
type hit struct {
	Content
	// owns is what the file system says it spans. A signature in there is file
	// content, or the file system's own.
	owns extent
	// damaged: the magic is there, and the rest is not as it must be. Such a hit
	// owns nothing and counts only when there is nothing better.
	damaged bool
	// weak: a backup, or a trace that a valid file system elsewhere outdoes.
	weak bool
}

// probe decides what a device of the given size holds. It knows no system calls.
func probe(ctx context.Context, r io.ReaderAt, size int64) (Content, error) {
	if size <= 0 {
		return Content{}, fmt.Errorf("the device has a size of %d bytes: %w", size, backends.ErrUnavailable)
	}
	v, err := read(ctx, r, size, plan(size))
	if err != nil {
		return Content{}, err
	}
	if hits := v.find(); len(hits) > 0 {
		return judge(hits), nil
	}
	if c := v.blank(); c.State != Blank {
		return c, nil
	}
	// Only now: a device with something on it is not read in more places each time.
	if v, err = read(ctx, r, size, rarePlaces(size)); err != nil {
		return Content{}, err
	}
	return v.blank(), nil
}

// blank says where the first byte is that is not zero, if there is one.
func (v view) blank() Content {
	for _, p := range v {
		if i := firstNonZero(p.data); i >= 0 {
			return Content{State: Unknown, Offset: p.off + int64(i)}
		}
	}
	return Content{State: Blank}
}

// rarePlaces are where an xfs whose head is lost may have its second superblock.
func rarePlaces(size int64) []extent {
	var places []extent
	for _, off := range xfsElsewhere(size) {
		if off > 0 && off+pageSize <= size {
			places = append(places, extent{off, off + pageSize})
		}
	}
	return pagesOf(places, size)
}

// plan lists what is to be read, in order and without overlap: the edges, and
// every place of the table of signatures.
func plan(size int64) []extent {
	places := []extent{{0, edge}, {size - edge, size}}
	for i := range signatures {
		for _, off := range signatures[i].places(size) {
			places = append(places, extent{off, off + int64(signatures[i].span)})
		}
	}
	return pagesOf(places, size)
}

// pagesOf makes whole pages of places, in order, and one of what is close together.
func pagesOf(places []extent, size int64) []extent {
	if len(places) == 0 {
		return nil
	}
	for i, p := range places {
		lo := max(p.lo, 0) &^ (pageSize - 1)
		hi := min((p.hi+pageSize-1)&^(pageSize-1), size)
		places[i] = extent{lo, max(lo, hi)}
	}
	slices.SortFunc(places, func(a, b extent) int { return cmp.Compare(a.lo, b.lo) })
	merged := places[:1]
	for _, p := range places[1:] {
		if last := &merged[len(merged)-1]; p.lo <= last.hi+mergeSpan {
			last.hi = max(last.hi, p.hi)
		} else if p.hi > p.lo {
			merged = append(merged, p)
		}
	}
	return merged
}

// part is a piece of the device as it was read.
type part struct {
	off  int64
	data []byte
}

type view []part

// read reads everything or fails.
func read(ctx context.Context, r io.ReaderAt, size int64, places []extent) (view, error) {
	v := make(view, 0, len(places))
	for _, p := range places {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := aligned(int(p.hi - p.lo))
		n, err := r.ReadAt(b, p.lo)
		if n == len(b) {
			err = nil // io.EOF may come with the last byte
		} else if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %d of %d bytes, of a device of %d", io.ErrUnexpectedEOF, n, len(b), size)
		}
		if err != nil {
			return nil, fmt.Errorf("read %d bytes at %d: %w: %w", len(b), p.lo, err, backends.ErrUnavailable)
		}
		v = append(v, part{p.lo, b})
	}
	return v, nil
}

// aligned is memory that direct I/O takes on any disk.
func aligned(n int) []byte {
	b := make([]byte, n+pageSize)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (pageSize - 1))
	return b[skip : skip+n : skip+n]
}

// bytes are n bytes at off. What lies behind the end of the device is zero; the
// plan holds everything that is asked for.
func (v view) bytes(off int64, n int) []byte {
	i, ok := slices.BinarySearchFunc(v, off, func(p part, off int64) int { return cmp.Compare(p.off, off) })
	if !ok {
		i--
	}
	if i < 0 || off-v[i].off > int64(len(v[i].data)) {
		return make([]byte, n)
	}
	b := v[i].data[off-v[i].off:]
	if len(b) >= n {
		return b[:n:n]
	}
	return append(make([]byte, 0, n), b...)[:n]
}

func (v view) size() int64 {
	last := v[len(v)-1]
	return last.off + int64(len(last.data))
}

// find looks for every signature of the table.
func (v view) find() []hit {
	var hits []hit
	size := v.size()
	for i := range signatures {
		s := &signatures[i]
		for _, off := range s.places(size) {
			b := v.bytes(off, s.span)
			if string(b[s.magicOff:s.magicOff+len(s.magic)]) != s.magic {
				continue
			}
			h := hit{Content: Content{State: s.state, Type: s.typ, Offset: off}, owns: extent{off, size}, weak: s.weak}
			if h.State == Filesystem {
				h.Clean = true
			}
			if s.parse != nil && !s.parse(b, &h) {
				continue
			}
			hits = append(hits, h.finish(size))
		}
	}
	return hits
}

// finish draws what follows for every format.
func (h hit) finish(size int64) hit {
	if h.Size > 0 {
		h.owns.hi = min(h.Size, size)
	}
	if h.Size > size {
		h.Errors = true // cut short: the kernel refuses it
	}
	if h.State != Filesystem {
		h.Clean = false
	}
	if h.damaged || h.State != Filesystem {
		h.owns = extent{}
	}
	if h.damaged {
		h.Errors, h.InProgress = true, false
	}
	if h.Errors || h.InProgress {
		h.Clean = false
	}
	return h
}

// judge decides between hits.
func judge(hits []hit) Content {
	slices.SortStableFunc(hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Offset, b.Offset))
	})
	best := hits[0]
	if best.rank() > 0 {
		return best.Content // nothing whole that is first-hand
	}
	// Only a file system can own another hit. The first one counts: a file system
	// that starts inside of another is a file.
	fs := slices.IndexFunc(hits, func(h hit) bool { return h.rank() == 0 && h.State == Filesystem })
	if fs < 0 {
		return best.Content
	}
	for i, h := range hits {
		if i == fs || h.rank() > 0 || hits[fs].owns.holds(h.Offset) {
			continue
		}
		if h.State == Filesystem {
			h.State = Foreign
			h.Type = "ambiguous: " + hits[fs].Type + " and " + h.Type
		}
		return h.Content
	}
	return hits[fs].Content
}

// rank is 0 for a whole, first-hand hit.
func (h hit) rank() int {
	r := 0
	if h.weak {
		r++
	}
	if h.damaged {
		r += 2
	}
	return r
}

// firstNonZero is the index of the first byte that is not zero, or -1.
func firstNonZero(b []byte) int {
	// Eight bytes at a time: this runs over 300 KiB for each fresh volume.
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if le64(b[i:]) != 0 {
			break
		}
	}
	for ; i < len(b); i++ {
		if b[i] != 0 {
			return i
		}
	}
	return -1
}
