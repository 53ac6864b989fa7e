package lvm

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// The tags on disk. A driver must go on reading what an older one wrote: these
// files are added to, never changed.
var golden = map[string]meta{
	"tags-v1-volume.txt": {
		Class: "ssd", Kind: kindVolume, Name: "pvc-ü/..", State: stateReady, Fingerprint: "1.abc",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Format: "xfs:done",
	},
	"tags-v1-snapshot.txt": {
		Class: "thin", Kind: kindSnapshot, Name: "snap", State: stateCreating,
		Source: "thin/" + nameOf(kindVolume, "pvc-1"), Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Format: formatRaw,
	},
}

func goldenTags(t testing.TB, file string) []string {
	t.Helper()
	out, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestGoldenTags(t *testing.T) {
	for file, want := range golden {
		tags := goldenTags(t, file)
		if got := want.tags("lvm.csikit.dev"); !reflect.DeepEqual(got, tags) {
			t.Errorf("%s: wrote\n%s", file, strings.Join(got, "\n"))
		}
		got, err := decodeTags("lvm.csikit.dev", append(tags, "somebody.elses"))
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: read %+v, %v\nwant %+v", file, got, err, want)
		}
		if err := checkTags(tags); err != nil {
			t.Error(err)
		}
	}
}

func TestTagsThatCannotBeRead(t *testing.T) {
	base := goldenTags(t, "tags-v1-volume.txt")
	with := func(old, now string) []string {
		var tags []string
		for _, s := range base {
			if strings.HasPrefix(s, old) {
				s = now
			}
			if s != "" {
				tags = append(tags, s)
			}
		}
		return tags
	}
	for what, c := range map[string]struct {
		tags []string
		kind error
	}{
		"of another driver": {with(tagDriver, tagDriver+"other"), errForeign},
		"of none":           {nil, errForeign},
		"newer":             {with(tagVersion, tagVersion+"2"), backends.ErrPrecondition},
		"no version":        {with(tagVersion, ""), backends.ErrPrecondition},
		"no state":          {with(tagState, ""), backends.ErrUnavailable},
		"unknown state":     {with(tagState, tagState+"frozen"), backends.ErrUnavailable},
		"two states":        {append(with("x", ""), tagState+stateDeleting), backends.ErrUnavailable},
		"no name":           {with(tagName, ""), backends.ErrUnavailable},
		"bad name":          {with(tagName, tagName+"%"), backends.ErrUnavailable},
		"bad time":          {with(tagTime, tagTime+"x"), backends.ErrUnavailable},
		"bad class":         {with(tagClass, tagClass+"../x"), backends.ErrUnavailable},
		"bad kind":          {with(tagKind, tagKind+"x"), backends.ErrUnavailable},
		"bad offset":        {append(with("x", ""), tagOffset+"-1"), backends.ErrUnavailable},
	} {
		_, err := decodeTags("lvm.csikit.dev", c.tags)
		if !errors.Is(err, c.kind) || errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What forbids most counts, and what is not known forbids too.
func TestFormat(t *testing.T) {
	for tags, want := range map[string]struct {
		state backends.FormatState
		fs    string
	}{
		"":                                            {backends.FormatNever, ""},
		"csi.fmt=ext4:started":                        {backends.FormatStarted, "ext4"},
		"csi.fmt=ext4:started csi.fmt=xfs:done":       {backends.FormatDone, "xfs"},
		"csi.fmt=xfs:done csi.fmt=ext4:started":       {backends.FormatDone, "xfs"},
		"csi.fmt=raw csi.fmt=ext4:started":            {backends.FormatDone, ""},
		"csi.fmt=ext4:somethingnew":                   {backends.FormatDone, "ext4"},
		"csi.fmt=ext4:started csi.fmt=xfs:mysterious": {backends.FormatDone, "xfs"},
	} {
		m := meta{Format: strongest(strings.Fields(tags))}
		if state, fs := m.format(); state != want.state || fs != want.fs {
			t.Errorf("%q: %v %q, want %v %q", tags, state, fs, want.state, want.fs)
		}
	}
	copied := meta{Source: "thin/x"}
	if state, _ := copied.format(); state != backends.FormatUnknown {
		t.Errorf("a copy of a volume that was never formatted is %v", state)
	}
}

// FuzzDecodeTags: whatever stands there, it is a volume, foreign, or an error with a
// kind that is not "not found".
func FuzzDecodeTags(f *testing.F) {
	f.Add("csi.d=d csi.v=1 csi.c=a csi.k=v csi.n=YQ csi.s=ready csi.t=1")
	f.Add("csi.d=d csi.v=1 csi.v=1")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := decodeTags("d", strings.Fields(s))
		switch {
		case err == nil && (m.Name == "" || !className.MatchString(m.Class)):
			t.Errorf("accepted %+v", m)
		case err != nil && !errors.Is(err, errForeign) && !errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, backends.ErrPrecondition):
			t.Errorf("no kind: %v", err)
		}
	})
}
