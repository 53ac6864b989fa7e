package backendtest

import (
	"context"
	"errors"
	"maps"

	"github.com/csikit/csikit/backends"
)

func (t *T) modify(ctx context.Context, id string, patch map[string]string) error {
	return t.watch("ModifyVolume", t.c.Modifier.ModifyVolume(ctx, backends.ModifyVolumeRequest{
		ID: id, Mutable: maps.Clone(patch), Secrets: t.cfg.secrets(),
	}))
}

// patches skips the check when none are known.
func (t *T) patches(n int) []map[string]string {
	t.Helper()
	patches := t.cfg.patches(&t.b.Traits)
	t.want(len(patches) >= n, "Mutable, and Traits.Parameters has too few mutable ones with values")
	return patches
}

func (t *T) modifying() task {
	patch := t.patches(1)[0]
	v := t.create(t.name())
	return task{
		do:   func(ctx context.Context) (any, error) { return nil, t.modify(ctx, v.ID, patch) },
		done: func(any) { t.applied(v.ID, patch) },
	}
}

// applied fails the check unless the volume has what was asked for.
func (t *T) applied(id string, patch map[string]string) {
	t.Helper()
	have := t.lookup(id).Mutable
	if have == nil {
		t.Logf("Volume.Mutable is nil: what is applied is not compared")
		return
	}
	for k, v := range patch {
		if have[k] != v {
			t.Errorf("volume %s has %s=%q, asked for was %q", id, k, have[k], v)
		}
	}
}

var modifyChecks = []check{
	{
		"modify/a patch", "Keys that are absent stay as they are", "Controller Modifier",
		func(t *T) {
			patches := t.patches(2)
			v := t.create(t.name())
			for _, p := range patches[:2] {
				t.must("ModifyVolume", t.modify(t.Context(), v.ID, p))
			}
			for _, p := range patches[:2] {
				t.applied(v.ID, p)
			}
			if t.cfg.Reopen != nil {
				t.reopen()
				t.applied(v.ID, patches[0])
			}
			t.same("the rest of the volume", t.lookup(v.ID), v)
		},
	},
	{
		"modify/nothing", "Keys that are absent stay as they are", "Controller Modifier",
		func(t *T) {
			v := t.create(t.name())
			before := t.lookup(v.ID).Mutable
			t.must("ModifyVolume of nothing", t.modify(t.Context(), v.ID, nil))
			t.same("what can be changed", t.lookup(v.ID).Mutable, before)
		},
	},
	{
		"modify/refused", "ErrInvalid promises that nothing of the call was applied.", "Controller Modifier",
		func(t *T) {
			patch := maps.Clone(t.patches(1)[0])
			v := t.create(t.name())
			before := t.lookup(v.ID).Mutable
			patch["zz-unknown-to-any-backend"] = "x"
			err := t.modify(t.Context(), v.ID, patch)
			if err == nil {
				t.Skip("the backend takes any key")
			}
			if errors.Is(err, backends.ErrInvalid) {
				t.same("what can be changed, after ErrInvalid", t.lookup(v.ID).Mutable, before)
			} else {
				t.Errorf("an unknown key: %v, want ErrInvalid", err)
			}
		},
	},
	{
		"modify/at creation", "take precedence over Parameters", "Controller Modifier",
		func(t *T) {
			patch, req := t.patches(1)[0], t.request(t.name())
			req.Mutable = maps.Clone(patch)
			v, err := t.provision(t.Context(), req, origin{})
			t.must("CreateVolume", err)
			t.applied(v.ID, patch)
		},
	},
}
