package nfs

import (
	"errors"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestOpenVolume: what is mounted is said without asking anybody, and only of a volume.
func TestOpenVolume(t *testing.T) {
	b, err := New(Options{
		Shares:   []Share{{Name: "main", Server: "nfs1", Export: "/srv", Options: []string{"vers=4.1"}}, {Name: "here", LocalDir: "/data"}},
		AnyShare: true, Legacy: LegacyUse,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	key, other := keyOf("a"), keyOf("b")
	mount := backends.Capability{Mode: backends.MultiNodeMultiWriter}
	for name, tc := range map[string]struct {
		id      string
		context map[string]string
		c       backends.Capability
		want    string // source, options
		kind    error
	}{
		"made":            {"n1#main#" + key, contextOf(b.o.Shares[0], key, "ns/a", nil), mount, "nfs1:/srv/ns/a vers=4.1", nil},
		"with options":    {"n1#main#" + key, contextOf(b.o.Shares[0], key, "a", []string{"nconnect=2"}), mount, "nfs1:/srv/a vers=4.1 nconnect=2", nil},
		"local":           {"n1#here#" + key, contextOf(b.o.Shares[1], key, "a", nil), mount, "/data/a", nil},
		"by hand":         {"whatever", map[string]string{"server": "fd00::1", "share": "/x", "subDir": "y"}, mount, "[fd00::1]:/x/y ", nil},
		"csi-driver-nfs":  {"nfs2#srv#pvc-1##", map[string]string{"server": "nfs2", "share": "/srv", "subdir": "pvc-1"}, mount, "nfs2:/srv/pvc-1 ", nil},
		"another volume":  {"n1#main#" + other, contextOf(b.o.Shares[0], key, "a", nil), mount, "", backends.ErrNotFound},
		"no volume":       {"whatever", contextOf(b.o.Shares[0], key, "a", nil), mount, "", backends.ErrNotFound},
		"no context":      {"n1#main#" + key, nil, mount, "", backends.ErrNotFound},
		"upwards":         {"whatever", map[string]string{"server": "s", "share": "/x", "subDir": "a/../../b"}, mount, "", backends.ErrInvalid},
		"options refused": {"whatever", map[string]string{"server": "s", "share": "/x", "mountOptions": "addr=1.2.3.4"}, mount, "", backends.ErrInvalid},
		"flags refused":   {"whatever", map[string]string{"server": "s", "share": "/x"}, backends.Capability{Flags: backends.NewFlags("nconnect=99")}, "", backends.ErrInvalid},
		"block":           {"whatever", map[string]string{"server": "s", "share": "/x"}, backends.Capability{Block: true}, "", backends.ErrInvalid},
		"ext4":            {"whatever", map[string]string{"server": "s", "share": "/x"}, backends.Capability{FSType: "ext4"}, "", backends.ErrInvalid},
	} {
		src, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: tc.id, Context: tc.context, Capability: tc.c})
		if !errors.Is(err, tc.kind) || (err == nil) != (tc.kind == nil) {
			t.Errorf("%s: %v, want %v", name, err, tc.kind)
		}
		if err != nil {
			continue
		}
		got := src.Dir
		if src.Mount != nil {
			got = src.Mount.Source + " " + strings.Join(src.Mount.Options, " ")
			if !src.Mount.Remote || src.Mount.FSType != "nfs" {
				t.Errorf("%s: %+v", name, src.Mount)
			}
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if s, err := decodeState(src.State); err != nil || src.Mount != nil && s.Source != src.Mount.Source {
			t.Errorf("%s: state %s: %v", name, src.State, err)
		}
	}
	if _, err := decodeState([]byte(`{"v":2}`)); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("state of a newer version: %v", err)
	}
}
