package walk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A stream of writes to all volumes of a group: a number to the first, then the
// same to the second, and on with the next number, each when the one before is on
// disk. Whenever all are cut at one moment, the first is equal or one ahead.

// warmUp is how many numbers are written before the group is cut.
const warmUp = 5

// counterFile is where a volume has its number, and at which offset: a device has
// none of its other data there.
func (v *Volume) counterFile() (path string, offset int64, err error) {
	if !v.block {
		return filepath.Join(v.path(pod1), "number"), 0, nil
	}
	size, err := v.sizeOf(pod1)
	return v.path(pod1), size / 6 &^ 4095, err
}

type stream struct {
	files   []*os.File
	offsets []int64
	stop    chan struct{}
	warm    chan struct{} // closed when some numbers are written
	done    chan error
}

func newStream(volumes []*Volume) (*stream, error) {
	s := &stream{stop: make(chan struct{}), warm: make(chan struct{}), done: make(chan error, 1)}
	for _, v := range volumes {
		path, offset, err := v.counterFile()
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.files, s.offsets = append(s.files, f), append(s.offsets, offset)
	}
	if err := s.put(0); err != nil {
		return nil, errors.Join(err, s.close())
	}
	go func() { s.done <- s.run() }()
	return s, nil
}

func (s *stream) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (s *stream) put(n uint64) error {
	for i, f := range s.files {
		b := make([]byte, 4096)
		binary.LittleEndian.PutUint64(b, n)
		if _, err := f.WriteAt(b, s.offsets[i]); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) run() error {
	for n := uint64(1); ; n++ {
		if n == warmUp {
			close(s.warm)
		}
		select {
		case <-s.stop:
			return nil
		default:
		}
		if err := s.put(n); err != nil {
			if n < warmUp {
				close(s.warm)
			}
			return err
		}
	}
}

// end stops the writer, which may have to wait for a thaw.
func (s *stream) end() error {
	close(s.stop)
	return errors.Join(<-s.done, s.close())
}

// takeWhileWriting cuts the group while numbers are written, if the driver does so
// to volumes in use.
func (g *groupSnapshot) takeWhileWriting(ctx context.Context) error {
	if !g.of[0].seen[pod1] || !g.of[1].seen[pod1] || g.o.still {
		return g.take(ctx)
	}
	s, err := newStream(g.of)
	if err != nil {
		return err
	}
	<-s.warm
	g.See("numbers are written to both volumes in turn")
	err = g.create(ctx, "a group called "+g.name)
	if serr := s.end(); serr != nil {
		return errors.Join(err, serr)
	}
	if status.Code(err) == codes.FailedPrecondition {
		return g.take(ctx)
	}
	g.counted = err == nil
	return err
}

// number is the one that a restored member has.
func (v *Volume) number() (uint64, error) {
	path, offset, err := v.counterFile()
	if err != nil {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	b := make([]byte, 8)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, int64(len(b))), b); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// restore restores all members at once and compares them.
func (g *groupSnapshot) restore(ctx context.Context) error {
	var restored []*Volume
	var numbers []uint64
	for _, m := range g.members {
		v := g.newVolume("restored-" + m.of.alias)
		v.source = m.source()
		if v.ask > 0 {
			v.ask, v.size = m.size, m.size
		}
		if err := steps(ctx, v.create, func(context.Context) error { v.has = m.has; return nil }, v.up, v.compareAll); err != nil {
			return err
		}
		restored = append(restored, v)
		if !g.counted || !v.seen[pod1] {
			continue
		}
		n, err := v.number()
		if err != nil {
			return err
		}
		numbers = append(numbers, n)
	}
	if err := g.sameMoment(numbers); err != nil {
		return err
	}
	for _, v := range restored {
		if err := steps(ctx, v.down, v.delete); err != nil {
			return err
		}
	}
	return nil
}

func (g *groupSnapshot) sameMoment(n []uint64) error {
	if len(n) != 2 {
		return nil
	}
	g.See("number %d in the first, %d in the second", n[0], n[1])
	if n[0] != n[1] && n[0] != n[1]+1 {
		return fmt.Errorf("the members of the group are of different moments: number %d was written to the first volume, %d to the second", n[0], n[1])
	}
	return nil
}
