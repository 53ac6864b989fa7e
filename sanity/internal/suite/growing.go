package suite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/sanity/internal/check"
)

// mostParts is how many pieces of data are spread over a volume that is to grow.
const mostParts = 32

// spread are places of a published volume, far from each other: pieces of one big
// file, or of a device from its beginning to its end.
type spread struct {
	t     *T
	name  string
	parts int
	step  int64
}

// newSpread is for a volume that is size bytes big.
func newSpread(t *T, name string, size int64) *spread {
	s := &spread{t: t, name: name, parts: int(max(1, min(mostParts, size/4/dataSize))), step: dataSize}
	if t.Config().Block && s.parts > 1 {
		s.step = (size/dataSize - 1) / int64(s.parts-1) * dataSize
	}
	return s
}

func (s *spread) word(i int) string { return fmt.Sprint(s.name, " ", i) }

// store writes all, down to the disk.
func (s *spread) store(target string) (err error) {
	flags := os.O_WRONLY
	if !s.t.Config().Block {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(place(s.t, target, "csikit-spread"), flags, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for i := range s.parts {
		if _, err := f.WriteAt(data(s.word(i)), int64(i)*s.step); err != nil {
			return err
		}
	}
	return f.Sync()
}

// holds tells whether all is there.
func (s *spread) holds(target string) error {
	f, err := os.Open(place(s.t, target, "csikit-spread"))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	got := make([]byte, dataSize)
	for i := range s.parts {
		at := int64(i) * s.step
		if _, err := io.ReadFull(io.NewSectionReader(f, at, dataSize), got); err != nil {
			return fmt.Errorf("%s at %d: %w", f.Name(), at, err)
		}
		if !bytes.Equal(got, data(s.word(i))) {
			return fmt.Errorf("%s has other data at %d than was written", f.Name(), at)
		}
	}
	return nil
}

func (s *spread) mustHold(clauses, when, target string) {
	if err := s.holds(target); err != nil {
		s.t.Fatalf(clauses, "%s: %v", when, err)
	}
}

// grows follows a CO: the controller first, in use where ONLINE is advertised, then
// the node. What a pod has written is looked at after each, and also when nothing of
// it is in memory any more.
func grows(t *T) {
	v, target := use(t)
	before := sizeAt(t, target)
	size := max(t.Config().ExpandSize, 2*sizeOf(t, v))
	s := newSpread(t, "first", before)
	if err := s.store(target); err != nil {
		t.Fatalf("NP-07", "writing to the published volume: %v", err)
	}
	if !t.Has("expansion:ONLINE") {
		v.Unpublish(target)
		v.FromNode()
	}
	resp := check.OK[*csi.ControllerExpandVolumeResponse](t, "CE-01 ID-11", expandRequest(v, size))
	if !t.Has("expansion:ONLINE") {
		target = v.ToNode().PublishAt()
	}
	s.mustHold("CE-01", "after ControllerExpandVolume", target)
	grown := true
	if resp.GetNodeExpansionRequired() && t.Has("node:EXPAND_VOLUME") {
		grown = grownOnNode(t, v, target, size)
		s.mustHold("NE-01 CE-01", "after NodeExpandVolume", target)
	}
	tooSmall := func(when, target string) {
		if after := sizeAt(t, target); grown && (t.Config().Block && after < size || after < before+(size-before)/2) {
			t.Failf("NE-01 CE-05 CE-06", "the volume was expanded to %d bytes, and a pod sees %d%s, before %d", size, after, when, before)
		}
	}
	tooSmall("", target)
	again := published(t, v, target)
	s.mustHold("CE-01 NE-01 NE-11", "after expanding, when the volume was staged and published again", again)
	tooSmall(" when it was staged again", again)
}

// published takes a volume that has grown away from the node, and back to it.
func published(t *T, v *check.Volume, target string) string {
	v.Unpublish(target)
	v.FromNode()
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		check.OK[*csi.NodeStageVolumeResponse](t, "CE-01 NE-01", v.StageRequest())
	}
	req := v.PublishRequest()
	check.OK[*csi.NodePublishVolumeResponse](t, "CE-01 NE-01", req)
	return req.GetTargetPath()
}
