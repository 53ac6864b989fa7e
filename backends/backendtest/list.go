package backendtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// pager asks a list for one page of IDs.
type pager func(page backends.Page) (ids []string, next string, err error)

func (t *T) volumePager() pager {
	return func(page backends.Page) ([]string, string, error) {
		vols, next, err := t.c.VolumeLister.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: page})
		ids := make([]string, len(vols))
		for i, v := range vols {
			ids[i] = v.ID
		}
		return ids, next, t.watch("ListVolumes", err)
	}
}

func (t *T) snapshotPager(volumeID string) pager {
	return func(page backends.Page) ([]string, string, error) {
		snaps, next, err := t.c.SnapshotLister.ListSnapshots(t.Context(), backends.ListSnapshotsRequest{
			VolumeID: volumeID, Page: page, Secrets: t.cfg.secrets(),
		})
		ids := make([]string, len(snaps))
		for i, s := range snaps {
			ids[i] = s.ID
			if volumeID != "" && s.VolumeID != volumeID {
				t.Errorf("ListSnapshots of volume %s has %s of volume %s", volumeID, s.ID, s.VolumeID)
			}
		}
		return ids, next, t.watch("ListSnapshots", err)
	}
}

// walk goes through a list. between is called after each page but the last, with
// what that page had.
func (t *T) walk(list pager, limit int, between func(page []string)) []string {
	t.Helper()
	var ids []string
	tokens := map[string]bool{"": true}
	for page := (backends.Page{Limit: limit}); ; {
		got, next, err := list(page)
		if err != nil {
			t.Fatalf("page of %d from %q: %v", limit, page.Token, err)
		}
		if len(got) > limit {
			t.Errorf("a page has %d entries, asked for were %d", len(got), limit)
		}
		ids = append(ids, got...)
		if next == "" {
			return ids
		}
		if tokens[next] {
			t.Fatalf("with pages of %d the token %q comes again: the list has no end", limit, next)
		}
		if len(next) > maxID {
			t.Errorf("a token has %d bytes, CSI allows %d", len(next), maxID)
		}
		tokens[next], page.Token = true, next
		if between != nil {
			between(got)
		}
	}
}

// everyLimit walks with pages of every size. The order is always the same.
func (t *T) everyLimit(list pager, want []string) {
	t.Helper()
	whole := t.walk(list, 1000, nil)
	if !slices.Equal(slices.Sorted(slices.Values(whole)), slices.Sorted(slices.Values(want))) {
		t.Errorf("the list is %q, want %q", whole, want)
	}
	for limit := 1; limit <= len(want)+1; limit++ {
		if got := t.walk(list, limit, nil); !slices.Equal(got, whole) {
			t.Errorf("with pages of %d the list is %q, with one page %q", limit, got, whole)
		}
	}
}

// mutating walks while others make and delete. What is there all the time comes
// exactly once.
func (t *T) mutating(list pager, create func() string, remove func(id string)) {
	t.Helper()
	const stay, come = 8, 5
	for limit := 1; limit <= 4; limit++ {
		stays, goes := map[string]int{}, []string{}
		for i := range 2 * stay {
			if id := create(); i%2 == 0 {
				stays[id] = 0
			} else {
				goes = append(goes, id)
			}
		}
		created := 0
		for _, id := range t.walk(list, limit, func(page []string) {
			// The very entries that the token may stand for go first.
			for _, id := range slices.Concat(page, goes[:min(1, len(goes))]) {
				if i := slices.Index(goes, id); i >= 0 {
					remove(id)
					goes = slices.Delete(goes, i, i+1)
				}
			}
			if created < come {
				goes = append(goes, create())
				created++
			}
		}) {
			if n, ok := stays[id]; ok {
				stays[id] = n + 1
			}
		}
		for id, n := range stays {
			if n != 1 {
				t.Errorf("with pages of %d, %s was listed %d times while others came and went", limit, id, n)
			}
			remove(id)
		}
		for _, id := range goes {
			remove(id)
		}
	}
}

// stale hands tokens in that the backend never gave.
func (t *T) stale(call string, list pager) {
	t.Helper()
	for _, token := range []string{"garbage", "\x00", "-1", "99999999999999999999", "../..", " ", strings.Repeat("x", maxID), `{"a":1}`, "v1.", "\u00e4"} {
		ids, _, err := list(backends.Page{Token: token, Limit: 10})
		if err == nil {
			t.Errorf("%s with token %.20q: no error, and %d entries", call, token, len(ids))
			continue
		}
		t.wantKind(fmt.Sprintf("%s with token %.20q", call, token), err, backends.ErrStaleToken)
	}
}

const listHolds = "Volumes come in an order that does not change, so that a token stands for a position and survives creates and deletes."

var listChecks = []check{
	{
		"list volumes/every limit", listHolds, "Controller VolumeLister",
		func(t *T) {
			t.everyLimit(t.volumePager(), nil)
			var want []string
			for range 9 {
				want = append(want, t.create(t.name()).ID)
			}
			t.everyLimit(t.volumePager(), want)
			if t.cfg.Reopen != nil {
				before := t.walk(t.volumePager(), 1000, nil)
				t.reopen()
				t.same("the order, opened again", t.walk(t.volumePager(), 2, nil), before)
			}
		},
	},
	{
		"list volumes/while others come and go", listHolds, "Controller VolumeLister",
		func(t *T) {
			t.mutating(t.volumePager(), func() string { return t.create(t.name()).ID }, func(id string) {
				t.must("DeleteVolume", t.remove(t.Context(), id))
			})
		},
	},
	{
		"list volumes/token", "An unknown token is ErrStaleToken.", "Controller VolumeLister",
		func(t *T) {
			t.create(t.name())
			t.stale("ListVolumes", t.volumePager())
		},
	},
	{
		"list volumes/entries", "VolumeLister serves LIST_VOLUMES.", "Controller VolumeLister",
		func(t *T) {
			want := map[string]*backends.Volume{}
			for range 3 {
				v := t.create(t.name())
				want[v.ID] = v
			}
			vols, _, err := t.c.VolumeLister.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 10}})
			t.must("ListVolumes", err)
			for _, v := range vols {
				t.same("an entry", v, want[v.ID])
			}
		},
	},
	{
		"list snapshots/every limit", "The rules of [VolumeLister] hold.", "Controller SnapshotLister",
		func(t *T) {
			t.everyLimit(t.snapshotPager(""), nil)
			byVolume, all := map[string][]string{}, []string{}
			for range 3 {
				v := t.create(t.name())
				for range 3 {
					s := t.snapshot(t.name(), v.ID)
					byVolume[v.ID], all = append(byVolume[v.ID], s.ID), append(all, s.ID)
				}
			}
			t.everyLimit(t.snapshotPager(""), all)
			for id, want := range byVolume {
				t.everyLimit(t.snapshotPager(id), want)
			}
			t.everyLimit(t.snapshotPager("volume-unknown-to-any-backend"), nil)
		},
	},
	{
		"list snapshots/while others come and go", "The rules of [VolumeLister] hold.", "Controller SnapshotLister",
		func(t *T) {
			v := t.create(t.name())
			t.mutating(t.snapshotPager(""), func() string { return t.snapshot(t.name(), v.ID).ID }, func(id string) {
				t.must("DeleteSnapshot", t.removeSnapshot(t.Context(), id))
			})
		},
	},
	{
		"list snapshots/token", "An unknown token is ErrStaleToken.", "Controller SnapshotLister",
		func(t *T) { t.stale("ListSnapshots", t.snapshotPager("")) },
	},
}
