package blockdev

import (
	"context"
	"fmt"
	"io"
	"sort"

	"github.com/csikit/csikit/backends"
)

// needsReplay reports whether the kernel would write to the device when it mounts
// what c says is there, read-only or not: a journal that holds what is not in its
// place yet, or files to clean up after. In doubt it says yes.
func needsReplay(ctx context.Context, r io.ReaderAt, size int64, c Content) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	l := &pages{r: r, size: size}
	switch c.Type {
	case "ext2":
		return false, nil
	case "ext3", "ext4":
		const (
			offOrphan, offIncompat, offRoCompat = 0xe8, 0x60, 0x64
			recoverFlag, orphansFlag            = 4, 0x10000
		)
		b := l.bytes(c.Offset, 1024)
		return le32(b[offIncompat:])&recoverFlag != 0 || le32(b[offRoCompat:])&orphansFlag != 0 || le32(b[offOrphan:]) != 0, l.err
	case "btrfs":
		const offLogRoot = 96
		b := l.bytes(c.Offset, 4096)
		return le64(b[offLogRoot:]) != 0, l.err
	case "xfs":
		clean, err := xfsLogClean(ctx, l, c.Offset)
		return !clean, err
	}
	return true, fmt.Errorf("journal of a %s: %w", c.Type, backends.ErrUnsupported)
}

// pages reads single bytes of a device that is read in pages. Its first error
// stays, and everything reads as zero then.
type pages struct {
	r    io.ReaderAt
	size int64
	err  error

	at   int64
	page []byte
}

func (l *pages) bytes(off int64, n int) []byte {
	b := make([]byte, 0, n)
	for l.err == nil && len(b) < n {
		p := off &^ (pageSize - 1)
		if l.page == nil || l.at != p {
			l.load(p)
			continue
		}
		b = append(b, l.page[off-p:min(int64(len(l.page)), off-p+int64(n-len(b)))]...)
		off = p + pageSize
	}
	if l.err != nil {
		return make([]byte, n)
	}
	return b
}

func (l *pages) load(p int64) {
	if p < 0 || p+pageSize > l.size {
		l.err = fmt.Errorf("read %d bytes at %d of a device of %d: %w", pageSize, p, l.size, backends.ErrPrecondition)
		return
	}
	b := aligned(pageSize)
	if n, err := l.r.ReadAt(b, p); n < len(b) {
		l.err = fmt.Errorf("read %d bytes at %d: %w: %w", len(b), p, err, backends.ErrUnavailable)
		return
	}
	l.at, l.page = p, b
}

// xfsLog is the log of an xfs: a ring of blocks of 512 bytes, each of which begins
// with the number of the round in which it was written.
type xfsLog struct {
	*pages
	off    int64
	blocks int64
}

const (
	xfsBlock     = 512
	xfsLogMagic  = 0xfeedbabe
	xfsUnmountOp = 0x20
)

// xfsLogClean reports whether the last record of the log says that the file system
// was unmounted in order.
func xfsLogClean(ctx context.Context, p *pages, offset int64) (bool, error) {
	b := p.bytes(offset, xfsBlock)
	size, agBlocks, start, count := int64(be32(b[4:])), int64(be32(b[84:])), be64(b[48:]), int64(be32(b[96:]))
	if p.err != nil {
		return false, p.err
	}
	if start == 0 || start > 1<<62 || agBlocks == 0 || count == 0 || b[124] > 31 {
		return false, nil // on another device, which is not looked at
	}
	ag, block := int64(start>>b[124]), int64(start&(1<<b[124]-1))
	l := xfsLog{p, offset + (ag*agBlocks+block)*size, count * size / xfsBlock}
	head := l.head()
	if head == 0 || ctx.Err() != nil {
		return false, ctx.Err()
	}
	return l.unmounted(head), l.err
}

func (l xfsLog) block(i int64) []byte {
	return l.bytes(l.off+(i+l.blocks)%l.blocks*xfsBlock, xfsBlock)
}

func (l xfsLog) cycle(i int64) uint32 {
	b := l.block(i)
	if n := be32(b); n != xfsLogMagic {
		return n
	}
	return be32(b[4:])
}

// head is behind the block that was written last: there the round changes.
func (l xfsLog) head() int64 {
	first := l.cycle(0)
	if l.cycle(l.blocks-1) == first {
		return l.blocks
	}
	return int64(sort.Search(int(l.blocks-1), func(i int) bool { return l.cycle(int64(i)) != first }))
}

// unmounted reports whether the record that ends at head is of an unmount.
func (l xfsLog) unmounted(head int64) bool {
	const longest = 256<<10/xfsBlock + 8 // blocks of a record, with its headers
	for i := head - 1; i > head-longest && l.err == nil; i-- {
		b := l.block(i)
		if be32(b) != xfsLogMagic {
			continue
		}
		headers := max((int64(be32(b[320:]))+32<<10-1)/(32<<10), 1)
		length := (int64(be32(b[12:])) + xfsBlock - 1) / xfsBlock
		op := l.block(i + headers)
		return i+headers+length == head && be32(b[40:]) == 1 && op[9]&xfsUnmountOp != 0
	}
	return false
}
