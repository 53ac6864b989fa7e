package loopfile

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/sparse"
)

// ChangedBlocks compares two snapshots by where their blocks are on disk, without
// reading any: what two reflinked files have at one place is the same, because a
// block that is shared is never written to. That takes as long as the files have
// extents, not bytes.
//
// What is told is never too little. It is more than what differs where a block
// was written with the bytes that it had, where the file system does not say
// where it is (inline, compressed), and, on a file system without reflinks,
// wherever either snapshot holds anything.
func (b *Backend) ChangedBlocks(ctx context.Context, req backends.ChangedBlocksRequest) (backends.BlockMap, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return backends.BlockMap{}, err
	}
	defer done()
	target, size, err := p.openWhole(req.Target)
	if err != nil {
		return backends.BlockMap{}, err
	}
	var base *os.File
	if req.Base != "" {
		if base, _, err = p.openWhole(req.Base); err != nil {
			return backends.BlockMap{}, errors.Join(err, target.Close())
		}
	}
	return backends.BlockMap{VolumeSize: size, Blocks: func(yield func(backends.Block, error) bool) {
		defer closeFiles(target, base)
		for block, err := range differences(ctx, base, target, min(max(req.Offset, 0), size), size) {
			if !yield(block, err) || err != nil {
				return
			}
		}
	}}, nil
}

func closeFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // read only
		}
	}
}

// openWhole opens the image of a snapshot that is ready.
func (p *pool) openWhole(id string) (*os.File, int64, error) {
	s, m, err := p.snapshot(id)
	if err != nil {
		return nil, 0, err
	}
	if m.Copy != nil {
		return nil, 0, fmt.Errorf("%w: snapshot %s is still being copied", backends.ErrUnavailable, id)
	}
	f, err := p.root.Open(s.at(s.file(m)))
	if err != nil {
		return nil, 0, unavailable(s.path(s.file(m)), err)
	}
	return f, m.Size, nil
}

// differences are the blocks in [from, size) that target does not have where
// base has them; with no base, those that hold anything. Neighbours are one.
func differences(ctx context.Context, base, target *os.File, from, size int64) iter.Seq2[backends.Block, error] {
	return func(yield func(backends.Block, error) bool) {
		var last backends.Block
		for block, err := range rawDifferences(ctx, base, target, from, size) {
			switch {
			case err != nil:
				yield(backends.Block{}, err)
				return
			case last.Size > 0 && last.Offset+last.Size == block.Offset:
				last.Size += block.Size
				continue
			case last.Size > 0 && !yield(last, nil):
				return
			}
			last = block
		}
		if last.Size > 0 {
			yield(last, nil)
		}
	}
}

func rawDifferences(ctx context.Context, base, target *os.File, from, size int64) iter.Seq2[backends.Block, error] {
	return func(yield func(backends.Block, error) bool) {
		a, b := newReader(base, from), newReader(target, from)
		defer a.stop()
		defer b.stop()
		for pos := from; pos < size; {
			if err := ctx.Err(); err != nil {
				yield(backends.Block{}, context.Cause(ctx))
				return
			}
			x, y := a.at(pos), b.at(pos)
			if err := errors.Join(a.err, b.err); err != nil {
				yield(backends.Block{}, err)
				return
			}
			end := min(x.end, y.end, size)
			if x.differs(y) && !yield(backends.Block{Offset: pos, Size: end - pos}, nil) {
				return
			}
			pos = end
		}
	}
}

// piece is what a file has from a position up to end.
type piece struct {
	end   int64
	data  bool  // it may hold something; else it reads as zeros
	known bool  // where is so
	where int64 // on disk, of the position
}

func (p piece) differs(q piece) bool {
	if !p.data && !q.data {
		return false
	}
	return !p.data || !q.data || !p.known || !q.known || p.where != q.where
}

const beyond = 1<<63 - 1

// reader walks through the extents of a file.
type reader struct {
	next func() (extent, error, bool)
	stop func()
	cur  extent
	more bool
	err  error
}

func newReader(f *os.File, from int64) *reader {
	r := &reader{stop: func() {}}
	if f == nil {
		return r
	}
	r.next, r.stop = iter.Pull2(pieces(f, from))
	r.advance()
	return r
}

// pieces are the extents of a file, or its segments where the file system does
// not tell extents.
func pieces(f *os.File, from int64) iter.Seq2[extent, error] {
	return func(yield func(extent, error) bool) {
		for e, err := range extents(f, from, true) {
			if errors.Is(err, errors.ErrUnsupported) {
				segments(f, from)(yield)
				return
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// segments are the parts of a file that are no holes, at no known place.
func segments(f *os.File, from int64) iter.Seq2[extent, error] {
	return func(yield func(extent, error) bool) {
		for {
			off, end, err := sparse.Segment(f, from)
			if err != nil || off == end {
				if err != nil {
					yield(extent{}, err)
				}
				return
			}
			if !yield(extent{Off: off, Len: end - off, Flags: extentVague}, nil) {
				return
			}
			from = end
		}
	}
}

func (r *reader) advance() {
	var err error
	if r.cur, err, r.more = r.next(); err != nil {
		r.err, r.more = err, false
	}
}

// at is what the file has at pos, which only grows from call to call.
func (r *reader) at(pos int64) piece {
	for r.more && r.cur.Off+r.cur.Len <= pos {
		r.advance()
	}
	if !r.more {
		return piece{end: beyond}
	}
	if pos < r.cur.Off {
		return piece{end: r.cur.Off}
	}
	return piece{
		end: r.cur.Off + r.cur.Len, data: r.cur.Flags&extentUnwritten == 0,
		known: r.cur.Flags&extentVague == 0, where: r.cur.Phys + pos - r.cur.Off,
	}
}
