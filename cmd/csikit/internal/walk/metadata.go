package walk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (w *Walk) noMetadata() string {
	if !w.can.service[csi.PluginCapability_Service_SNAPSHOT_METADATA_SERVICE] {
		return notAdvertised("SNAPSHOT_METADATA_SERVICE")
	}
	return needs(csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)(w)
}

// snapshotMetadata: whatever is told may be more than what there is, never less.
// Backups are made by it.
func (w *Walk) snapshotMetadata(ctx context.Context) error {
	source, err := w.blockSource(ctx)
	if err != nil {
		return err
	}
	base, target := w.newSnapshot("base", source), w.newSnapshot("target", source)
	if err := steps(ctx, source.up, source.writes("what base has"), base.take, source.writeElsewhere, target.take); err != nil {
		return err
	}
	var maps [3]*blockMap
	for i, open := range []openStream{base.allocated, target.allocated, target.deltaFrom(base)} {
		rpc := []string{"GetMetadataAllocated", "GetMetadataAllocated", "GetMetadataDelta"}[i]
		if maps[i], err = w.sameMap(ctx, rpc, open); err != nil {
			return err
		}
	}
	if err := w.compareBytes(ctx, base, target, maps); err != nil {
		return err
	}
	return steps(ctx, target.delete, base.delete, source.down, source.delete)
}

// blockSource is a raw block volume if the driver has those, for then every byte
// can be compared. Else the form of the answers is all there is to look at.
func (w *Walk) blockSource(ctx context.Context) (*Volume, error) {
	v := w.newVolume("source")
	v.block = true
	err := v.create(ctx)
	if code := status.Code(err); !w.o.Block && (code == codes.InvalidArgument || code == codes.FailedPrecondition) {
		w.See("no raw block volumes: the bytes of a file system are not compared")
		w.unseen, v.block = true, false
		err = v.create(ctx)
	}
	return v, err
}

// writeElsewhere writes to other places of the device than before, to some of
// those, and zeros to one: what became zero has changed, too.
func (v *Volume) writeElsewhere(context.Context) error {
	if !v.block || !v.seen[pod1] {
		return v.write("what target has")
	}
	size, err := v.sizeOf(pod1)
	if err != nil {
		return err
	}
	c := content{label: "what target has"}
	c.size, c.offset = piecesOf(size)
	if err := v.wipe(c.size / 2 &^ 4095); err != nil {
		return err
	}
	c.offset = []int64{c.offset[1] + c.size/2&^4095, c.offset[2], size / 6 &^ 4095}
	return v.writeAt(c)
}

// wipe writes zeros to the beginning of the device.
func (v *Volume) wipe(size int64) error {
	f, err := os.OpenFile(v.file(pod1), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, size), 0)
	return errors.Join(err, f.Sync(), f.Close())
}

// sameMap reads a stream at once, in small messages, and from the middle.
func (w *Walk) sameMap(ctx context.Context, rpc string, open openStream) (*blockMap, error) {
	all, err := w.readMap(ctx, rpc, open, 0, 0)
	if err != nil {
		return nil, err
	}
	if err := w.sameFrom(ctx, all, open, 0, 2); err != nil || len(all.spans) == 0 {
		return all, err
	}
	return all, w.sameFrom(ctx, all, open, all.spans[len(all.spans)/2].end, 0)
}

func (w *Walk) sameFrom(ctx context.Context, all *blockMap, open openStream, start int64, limit int32) error {
	part, err := w.readMap(ctx, all.rpc, open, start, limit)
	if err != nil {
		return err
	}
	if !slices.Equal(part.from(start), all.from(start)) {
		return fmt.Errorf("%s answers other blocks from offset %d on, at most %d a message", all.rpc, start, limit)
	}
	return nil
}

// compareBytes restores both snapshots and reads them whole.
func (w *Walk) compareBytes(ctx context.Context, base, target *snapshot, maps [3]*blockMap) error {
	var restored []*Volume
	for i, s := range []*snapshot{base, target} {
		v := w.newVolume([]string{"restored-base", "restored-target"}[i])
		v.source, v.block = s.source(), s.of.block
		if v.ask > 0 {
			v.ask, v.size = s.size, s.size
		}
		v.has = nil
		if err := steps(ctx, v.create, v.up); err != nil {
			return err
		}
		restored = append(restored, v)
	}
	if restored[0].block && restored[0].seen[pod1] && restored[1].seen[pod1] {
		if err := w.compareDevices(ctx, restored, maps); err != nil {
			return err
		}
	}
	for _, v := range restored {
		if err := steps(ctx, v.down, v.delete); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) compareDevices(ctx context.Context, restored []*Volume, maps [3]*blockMap) error {
	a, err := os.Open(restored[0].path(pod1))
	if err != nil {
		return err
	}
	defer a.Close() //nolint:errcheck // only read
	b, err := os.Open(restored[1].path(pod1))
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // only read
	size := min(maps[0].capacity, maps[1].capacity)
	if err := compareReaders(ctx, io.NewSectionReader(a, 0, size), io.NewSectionReader(b, 0, size), maps); err != nil {
		return err
	}
	w.See("every byte of %s compared: what is not told is zero, or the same in both", mib(size))
	return nil
}

// compareReaders wants each block that is not zero in a map, and each that
// differs.
func compareReaders(ctx context.Context, a, b io.Reader, maps [3]*blockMap) error {
	const step, unit = 1 << 20, 4096
	x, y, zero := make([]byte, step), make([]byte, step), make([]byte, step)
	for at := int64(0); ; at += step {
		n, err := io.ReadFull(a, x)
		m, berr := io.ReadFull(b, y)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return err
		}
		if berr != nil && !errors.Is(berr, io.ErrUnexpectedEOF) && !errors.Is(berr, io.EOF) {
			return berr
		}
		if n != m {
			return fmt.Errorf("the restored volumes have different sizes: %d, %d", at+int64(n), at+int64(m))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, c := range []struct {
			m    *blockMap
			x, y []byte
		}{{maps[0], x, zero}, {maps[1], y, zero}, {maps[2], x, y}} {
			if err := untold(c.m, at, unit, c.x[:n], c.y[:n]); err != nil {
				return err
			}
		}
		if n < step {
			return nil
		}
	}
}

// untold finds the first unit that differs and is not in the map.
func untold(m *blockMap, at int64, unit int, x, y []byte) error {
	if bytes.Equal(x, y) {
		return nil
	}
	for i := 0; i < len(x); i += unit {
		first, last := differing(x[i:min(i+unit, len(x))], y[i:min(i+unit, len(y))])
		s := span{at + int64(i+first), at + int64(i+last)}
		if first < last && !m.covers(s) {
			return fmt.Errorf("%s does not tell of the %d bytes at %d, which are others: a backup would miss them", m.rpc, s.end-s.offset, s.offset)
		}
	}
	return nil
}

// differing is the part of two slices outside of which they are equal.
func differing(x, y []byte) (first, last int) {
	last = len(x)
	for first < last && x[first] == y[first] {
		first++
	}
	for first < last && x[last-1] == y[last-1] {
		last--
	}
	return first, last
}
