package backends

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestNotFoundNamesItsObject(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want NotFoundError
		text string
	}{
		{VolumeNotFound("v1"), NotFoundError{KindVolume, "v1"}, `volume "v1" not found`},
		{SnapshotNotFound("s1"), NotFoundError{KindSnapshot, "s1"}, `snapshot "s1" not found`},
		{GroupNotFound("g1"), NotFoundError{KindGroup, "g1"}, `group snapshot "g1" not found`},
		{NodeNotFound("n1"), NotFoundError{KindNode, "n1"}, `node "n1" not found`},
	} {
		wrapped := fmt.Errorf("lvs: %w", tt.err)
		if !errors.Is(wrapped, ErrNotFound) || errors.Is(wrapped, ErrUnavailable) {
			t.Errorf("%v: kind lost", wrapped)
		}
		got, ok := errors.AsType[*NotFoundError](wrapped)
		if !ok || *got != tt.want {
			t.Errorf("got %+v, want %+v", got, tt.want)
		}
		if tt.err.Error() != tt.text {
			t.Errorf("got %q, want %q", tt.err, tt.text)
		}
	}
}

func TestAccessModes(t *testing.T) {
	for mode := range MultiNodeMultiWriter + 2 {
		name := mode.String()
		if known := mode >= SingleNodeWriter && mode <= MultiNodeMultiWriter; known == (name == "UNKNOWN") {
			t.Errorf("mode %d is %s", mode, name)
		}
	}
	for mode, want := range map[AccessMode][2]bool{
		SingleNodeWriter:       {false, false},
		SingleNodeReader:       {true, false},
		SingleNodeSingleWriter: {false, false},
		SingleNodeMultiWriter:  {false, false},
		MultiNodeReader:        {true, true},
		MultiNodeSingleWriter:  {false, true},
		MultiNodeMultiWriter:   {false, true},
	} {
		if got := [2]bool{mode.ReadOnly(), mode.MultiNode()}; got != want {
			t.Errorf("%v: read-only and multi-node are %v, want %v", mode, got, want)
		}
	}
}

// Records hold these words: a change breaks the state of running nodes.
func TestFormatStateNames(t *testing.T) {
	for s, want := range map[FormatState]string{
		FormatUnknown: "unknown", FormatNever: "never", FormatStarted: "started", FormatDone: "done", 9: "unknown",
	} {
		if s.String() != want {
			t.Errorf("state %d is %q, want %q", s, s, want)
		}
	}
}

type recorder struct{ log []string }

func (r *recorder) Progress(step string) { r.log = append(r.log, "progress "+step) }

func (r *recorder) Busy(step string) func() {
	r.log = append(r.log, "busy "+step)
	return func() { r.log = append(r.log, "done "+step) }
}

func TestActivity(t *testing.T) {
	r := &recorder{}
	ctx, cancel := context.WithCancel(WithActivity(t.Context(), r))
	defer cancel()
	Progress(ctx, "copy 1 of 2")
	done := Busy(ctx, "mkfs")
	done()
	if got, want := fmt.Sprint(r.log), "[progress copy 1 of 2 busy mkfs done mkfs]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNoActivity(t *testing.T) {
	Progress(t.Context(), "nobody listens")
	Busy(t.Context(), "nobody listens")()
}
