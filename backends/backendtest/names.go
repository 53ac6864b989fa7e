package backendtest

import (
	"strings"

	"github.com/csikit/csikit/backends"
)

// hostileNames are all of them legal: any Unicode up to 128 bytes, without
// control characters.
func hostileNames() []string {
	return []string{
		"a", "A", "-", "-rf", "--help", ".", "..", "...", "/", "//", "a/b", "a/../b", "../../../../etc/passwd", `\`, `..\..\x`,
		" ", "a b", " a", "a ", "a.", "~", "$HOME", "$(id)", "`id`", "a;b", "a|b", "a&b", "a>b", "*", "?", "[a]", "{a,b}",
		`"`, "'", `"a'b`, "%s%d%n", "%2e%2e%2f", "a%00b", "#a", "a:b", "a=b", "a,b", "@a", "null", "nil", "true", "0", "con",
		"caf\u00e9", "cafe\u0301", "\u00df", "ss", "\u0130", "i", "\u202egnp", "\u200b", "\ufeff", "\U0001f4be",
		strings.Repeat("n", 63), strings.Repeat("n", 64), strings.Repeat("n", 127), strings.Repeat("n", 128), strings.Repeat("n", 127) + "m",
		strings.Repeat("\u00e4", 64), strings.Repeat("\u20ac", 42), strings.Repeat("\U0001f4be", 32), strings.Repeat("/", 128), strings.Repeat("../", 42),
		"pvc-6f1f6a8e-6d5c-4bd0-8a5e-1c8f5d7b8f10", "pvc-6f1f6a8e-6d5c-4bd0-8a5e-1c8f5d7b8f1",
	}
}

// hostileIDs are of no volume; id is of one.
func hostileIDs(id string) []string {
	return []string{
		id + "x", id + " ", " " + id, id + "/", id + "/x", id + "\x00", id + "\x00x", "./" + id, "../" + id, "x/../" + id, id + "\n",
		strings.ToUpper(id) + "X", id[:len(id)-1], id + id, strings.Repeat("x", maxID), strings.Repeat("x", 1<<20),
		"a", "-", "--help", ".", "..", "/", "//", "../..", "../../../../etc/passwd", "/etc/passwd", "/dev/null", "\x00", "a\x00b", "\xff\xfe", "*", "%s", "~", "$(id)",
		"\u00e4", " ",
	}
}

var nameChecks = []check{
	{
		"names/any name is a volume", "any Unicode up to 128 bytes, without control characters", "Controller",
		func(t *T) {
			byName, byID := map[string]*backends.Volume{}, map[string]string{}
			for _, name := range hostileNames() {
				v, err := t.provision(t.Context(), t.request(name), origin{})
				if err != nil {
					t.Errorf("create volume %q: %v", name, err)
					continue
				}
				t.valid(v)
				if other, ok := byID[v.ID]; ok {
					t.Errorf("volumes %q and %q are both %s", other, name, v.ID)
				}
				byName[name], byID[v.ID] = v, name
			}
			for name, v := range byName {
				t.fits(v, t.request(name), origin{})
			}
			t.removeEach(byName)
		},
	},
	{
		"names/any name is a snapshot", "The rules of Volume, FindVolume, CreateVolume and DeleteVolume hold alike.", "Controller Snapshotter",
		func(t *T) {
			v, byID := t.create(t.name()), map[string]string{}
			for _, name := range hostileNames() {
				s := t.snapshot(name, v.ID)
				t.validID("snapshot ID", s.ID)
				if other, ok := byID[s.ID]; ok {
					t.Errorf("snapshots %q and %q are both %s", other, name, s.ID)
				}
				byID[s.ID] = name
			}
			for id, name := range byID {
				found, err := t.findSnapshot(t.Context(), t.snapshotRequest(name, v.ID))
				t.must("FindSnapshot", err)
				if found == nil || found.ID != id {
					t.Errorf("snapshot %q is %s, found is %+v", name, id, found)
				}
				t.must("DeleteSnapshot", t.removeSnapshot(t.Context(), id))
			}
		},
	},
	{
		"names/an ID that is none", "a missing one VolumeNotFound(req.ID).", "Controller",
		func(t *T) {
			v := t.create(t.name())
			for _, id := range hostileIDs(v.ID) {
				_, err := t.volume(t.Context(), id)
				t.noVolume("Volume", err, id)
				t.noVolume("DeleteVolume", t.b.Controller.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}), id)
				t.hostile(id)
			}
			t.same("the volume afterwards", t.lookup(v.ID), v)
		},
	},
	{
		"names/an ID of a snapshot that is none", "The rules of Volume, FindVolume, CreateVolume and DeleteVolume hold alike.", "Controller Snapshotter",
		func(t *T) {
			s := t.snapshot(t.name(), t.create(t.name()).ID)
			for _, id := range append(hostileIDs(s.ID), s.VolumeID) {
				_, err := t.c.Snapshotter.Snapshot(t.Context(), backends.SnapshotRequest{ID: id})
				t.missing("Snapshot", err, backends.KindSnapshot, id)
				err = t.c.Snapshotter.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: id})
				t.missing("DeleteSnapshot", err, backends.KindSnapshot, id)
			}
			t.same("the snapshot afterwards", t.lookupSnapshot(s.ID), s)
		},
	},
}

// removeEach deletes the volumes one by one, and looks that the others stay.
func (t *T) removeEach(byName map[string]*backends.Volume) {
	t.Helper()
	for name, v := range byName {
		t.must("DeleteVolume", t.remove(t.Context(), v.ID))
		t.gone(t.request(name), v.ID)
		delete(byName, name)
		for _, other := range byName {
			t.same("another volume", t.lookup(other.ID), other)
			break
		}
	}
}

// missing fails the check unless err says that exactly this is not found. A
// backend that cannot know may say so.
func (t *T) missing(call string, err error, kind backends.Kind, id string) {
	t.Helper()
	if !isUnavailable(err) {
		t.wantNotFound(call+" of an ID that is none", err, kind, id)
	}
}

func (t *T) noVolume(call string, err error, id string) {
	t.Helper()
	t.missing(call, err, backends.KindVolume, id)
}

// hostile hands an ID that is none to everything else that takes one.
func (t *T) hostile(id string) {
	t.Helper()
	ctx := t.Context()
	if t.c.Expander != nil {
		size := 2 * t.cfg.size(&t.b.Traits)
		_, err := t.c.Expander.ExpandVolume(ctx, backends.ExpandVolumeRequest{ID: id, Size: size, Range: backends.CapacityRange{Required: size}})
		t.noVolume("ExpandVolume", err, id)
	}
	if t.c.Modifier != nil {
		t.noVolume("ModifyVolume", t.c.Modifier.ModifyVolume(ctx, backends.ModifyVolumeRequest{ID: id}), id)
	}
	if t.c.HealthChecker != nil {
		_, err := t.c.HealthChecker.VolumeHealth(ctx, backends.VolumeRequest{ID: id})
		t.noVolume("VolumeHealth", err, id)
	}
	if t.c.Attacher != nil && t.b.NodeID != "" {
		_, err := t.c.Attacher.AttachVolume(ctx, backends.AttachVolumeRequest{ID: id, NodeID: t.b.NodeID, Capability: t.capability()})
		t.noVolume("AttachVolume", err, id)
		t.surely("DetachVolume of an ID that is none", t.detach(ctx, id, t.b.NodeID), backends.VolumeNotFound(id))
	}
	if t.c.Snapshotter != nil {
		_, err := t.c.Snapshotter.CreateSnapshot(ctx, backends.CreateSnapshotRequest{Name: t.name(), VolumeID: id, Fingerprint: fingerprint})
		t.noVolume("CreateSnapshot", err, id)
	}
	if t.b.Node != nil {
		_, err := t.b.Node.OpenVolume(ctx, backends.OpenVolumeRequest{ID: id, Capability: t.capability()})
		t.noVolume("OpenVolume", err, id)
		t.must("CloseVolume of an ID that is none", t.b.Node.CloseVolume(ctx, backends.CloseVolumeRequest{ID: id}))
	}
}
