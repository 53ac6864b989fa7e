package suite

import (
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// snapshotsOf are all that ListSnapshots has of a volume.
func snapshotsOf(t *T, volume string) []*csi.Snapshot {
	var all []*csi.Snapshot
	token := ""
	for range 100000 {
		resp := check.OK[*csi.ListSnapshotsResponse](t, "LS-01", &csi.ListSnapshotsRequest{SourceVolumeId: volume, StartingToken: token, Secrets: t.Config().Secrets})
		for _, e := range resp.GetEntries() {
			all = append(all, e.GetSnapshot())
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
	}
	return all
}

// lister is an RPC that lists in pages.
type lister struct {
	name, all, limit, more, token string // clauses
	needs                         string
	// fill makes things that are to be listed.
	fill func(t *T, n int) (ids []string)
	page func(t *T, limit int32, token string) (ids []string, next string, err error)
}

func listers() []lister {
	return []lister{
		{"ListVolumes", "LV-02", "LV-03", "LV-04", "LV-06", "CREATE_DELETE_VOLUME LIST_VOLUMES", func(t *T, n int) (ids []string) {
			for range n {
				ids = append(ids, t.NewVolume().VolumeId)
			}
			return ids
		}, func(t *T, limit int32, token string) (ids []string, next string, err error) {
			r, err := check.Ask[*csi.ListVolumesResponse](t, &csi.ListVolumesRequest{MaxEntries: limit, StartingToken: token})
			for _, e := range r.GetEntries() {
				ids = append(ids, e.GetVolume().GetVolumeId())
			}
			return ids, r.GetNextToken(), err
		}},
		{"ListSnapshots", "LS-02", "LS-04", "LS-05", "LS-06", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT LIST_SNAPSHOTS", func(t *T, n int) (ids []string) {
			v := t.NewVolume()
			for range n {
				ids = append(ids, v.NewSnapshot().GetSnapshotId())
			}
			return ids
		}, func(t *T, limit int32, token string) (ids []string, next string, err error) {
			r, err := check.Ask[*csi.ListSnapshotsResponse](t, &csi.ListSnapshotsRequest{MaxEntries: limit, StartingToken: token, Secrets: t.Config().Secrets})
			for _, e := range r.GetEntries() {
				ids = append(ids, e.GetSnapshot().GetSnapshotId())
			}
			return ids, r.GetNextToken(), err
		}},
	}
}

// listChecks: H-20.
func listChecks() []Check {
	var all []Check
	for _, l := range listers() {
		all = append(all,
			Check{ID: "H-20/" + l.name + "/pages", Title: l.name + " walks through everything once, whatever the size of its pages", Clauses: l.all + " " + l.limit + " " + l.more, Needs: l.needs, Run: func(t *T) { pages(t, l) }},
			Check{ID: "H-20/" + l.name + "/changes", Title: l.name + " stays whole while things come and go between pages", Clauses: l.all + " " + l.more, Needs: l.needs, Run: func(t *T) { pagesThatChange(t, l) }},
			Check{ID: "H-20/" + l.name + "/old-token", Title: l.name + " takes a token again, or says ABORTED", Clauses: l.token, Needs: l.needs, Run: func(t *T) { oldToken(t, l) }},
		)
	}
	return append(all, []Check{
		{ID: "H-20/ListSnapshots/filter", Title: "ListSnapshots by snapshot_id and by source_volume_id has those and no others, in pages too", Clauses: "LS-07 LS-08 LS-04 LS-05", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT LIST_SNAPSHOTS", Run: filters},
		{ID: "H-20/ListVolumes/published", Title: "ListVolumes and ControllerGetVolume tell where a volume is published", Clauses: "LV-08 CG-06 CG-02", Needs: "CREATE_DELETE_VOLUME node PUBLISH_UNPUBLISH_VOLUME LIST_VOLUMES_PUBLISHED_NODES", Run: tellsNodes},
		{ID: "H-20/ListVolumes/same", Title: "ListVolumes and ControllerGetVolume tell of a volume what CreateVolume told", Clauses: "LV-02 CV-42 CG-02", Needs: "CREATE_DELETE_VOLUME LIST_VOLUMES|GET_VOLUME", Run: tellsTheSame},
		{ID: "H-20/ListSnapshots/group", Title: "ListSnapshots has the snapshots of groups", Clauses: "LS-02 CS-16", Needs: "CREATE_DELETE_VOLUME group LIST_SNAPSHOTS", Run: listsMembers},
		{ID: "H-20/ListSnapshots/same", Title: "ListSnapshots and GetSnapshot tell of a snapshot what CreateSnapshot told", Clauses: "LS-09 GS-01", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT LIST_SNAPSHOTS|GET_SNAPSHOT", Run: snapshotTellsTheSame},
		{ID: "H-20/ControllerListVolumeHealth", Title: "ControllerListVolumeHealth leaves healthy volumes out, and ends", Clauses: "LH-03 LH-04 LH-05", Needs: "CREATE_DELETE_VOLUME LIST_VOLUME_HEALTH", Run: listsHealth},
	}...)
}

// walk goes through all pages, and gives what it saw, in order.
func walk(t *T, l lister, limit int32, between func(page int)) []string {
	var all []string
	tokens := map[string]bool{}
	token := ""
	for page := 0; ; page++ {
		ids, next, err := l.page(t, limit, token)
		if codeOf(err) == codes.Aborted && token != "" && page < 1000 {
			all, token, tokens = nil, "", map[string]bool{} // a walk may be cut: a CO begins anew
			if between != nil {
				between = nil
			}
			continue
		}
		if err != nil {
			t.Fatalf(l.more, "%s with max_entries %d, page %d: %s", l.name, limit, page, check.Describe(err))
		}
		all = append(all, ids...)
		if next == "" {
			return all
		}
		if tokens[next] {
			t.Fatalf(l.more, "%s with max_entries %d: the token %q came twice: a walk does not end", l.name, limit, next)
		}
		tokens[next], token = true, next
		if between != nil {
			between(page)
		}
	}
}

// whole says when a walk does not have each id once.
func whole(t *T, l lister, how string, got, want []string) {
	for _, id := range want {
		switch n := count(got, id); {
		case n == 0:
			t.Failf(l.all+" "+l.more, "%s %s does not have %s", l.name, how, id)
		case n > 1:
			t.Failf(l.more, "%s %s has %s %d times", l.name, how, id, n)
		}
	}
}

func count(list []string, s string) (n int) {
	for _, x := range list {
		if x == s {
			n++
		}
	}
	return n
}

func pages(t *T, l lister) {
	want := l.fill(t, 5)
	n := int32(len(walk(t, l, 0, nil)))
	for _, limit := range []int32{0, 1, 2, n - 1, n, n + 1, 1 << 30} {
		if limit == 1 && n > 200 || limit < 0 {
			continue // somebody else's: that takes long
		}
		whole(t, l, fmt.Sprintf("with max_entries %d", limit), walk(t, l, limit, nil), want)
	}
	if ids, next, err := l.page(t, 2, ""); err == nil && (len(ids) == 0 || next == "") {
		t.Failf(l.more, "%s with max_entries 2, of at least 5: %d entries, next_token %q", l.name, len(ids), next)
	}
}

func pagesThatChange(t *T, l lister) {
	stay := l.fill(t, 6)
	change := func(page int) {
		if page < 4 {
			l.fill(t, 1)
		}
	}
	whole(t, l, "while others come", walk(t, l, 2, change), stay)
	goes := t.NewVolume()
	gone := func(page int) {
		if page == 1 {
			goes.Delete()
		}
	}
	if l.name == "ListVolumes" {
		whole(t, l, "while another goes", walk(t, l, 2, gone), stay)
	}
}

func oldToken(t *T, l lister) {
	l.fill(t, 3)
	_, token, err := l.page(t, 1, "")
	if err != nil || token == "" {
		t.Fatalf(l.more, "%s with max_entries 1, of at least 3: no next_token, %s", l.name, check.Describe(err))
	}
	for range 2 {
		if _, _, err := l.page(t, 1, token); err != nil && codeOf(err) != codes.Aborted {
			t.Failf(l.token, "%s with a token of a moment ago: got %s, want OK or ABORTED", l.name, check.Describe(err))
		}
	}
	for _, bad := range []string{token + "x", "\u00e9", "0", "-1", "999999999", "../../x"} {
		_, _, err := l.page(t, 1, bad)
		switch codeOf(err) {
		case codes.Aborted, codes.Unavailable:
		case codes.OK:
			if !slices.Contains([]string{"0", "-1", "999999999"}, bad) {
				t.Failf(l.token, "%s with the token %q, which it never gave: got OK, want ABORTED", l.name, bad)
			}
		default:
			t.Failf(l.token, "%s with the token %q, which it never gave: got %s, want ABORTED", l.name, bad, check.Describe(err))
		}
	}
}

func filters(t *T) {
	a, b := t.NewVolume(), t.NewVolume()
	s1, s2, s3 := a.NewSnapshot(), a.NewSnapshot(), b.NewSnapshot()
	list := func(clause string, req *csi.ListSnapshotsRequest, want ...*csi.Snapshot) {
		var ids []string
		for _, s := range want {
			ids = append(ids, s.GetSnapshotId())
		}
		slices.Sort(ids)
		for _, limit := range []int32{0, 1} {
			got := walk(t, filtered(clause, req), limit, nil)
			slices.Sort(got)
			if !slices.Equal(got, ids) {
				t.Failf(clause, "ListSnapshots of %s, with max_entries %d, has %q, want %q", t.Text(req), limit, got, ids)
			}
		}
	}
	list("LS-07", &csi.ListSnapshotsRequest{SnapshotId: s1.GetSnapshotId()}, s1)
	list("LS-08", &csi.ListSnapshotsRequest{SourceVolumeId: a.VolumeId}, s1, s2)
	list("LS-08", &csi.ListSnapshotsRequest{SourceVolumeId: b.VolumeId}, s3)
	list("LS-07 LS-08", &csi.ListSnapshotsRequest{SourceVolumeId: a.VolumeId, SnapshotId: s2.GetSnapshotId()}, s2)
	list("LS-07 LS-08", &csi.ListSnapshotsRequest{SourceVolumeId: b.VolumeId, SnapshotId: s1.GetSnapshotId()})
	list("LS-07", &csi.ListSnapshotsRequest{SnapshotId: noSnapshot})
	list("LS-08", &csi.ListSnapshotsRequest{SourceVolumeId: noVolume})
}

// filtered is ListSnapshots with a filter.
func filtered(clause string, filter *csi.ListSnapshotsRequest) lister {
	return lister{name: "ListSnapshots", all: clause, limit: "LS-04", more: "LS-05 " + clause, page: func(t *T, limit int32, token string) (ids []string, next string, err error) {
		req := proto.Clone(filter).(*csi.ListSnapshotsRequest)
		req.MaxEntries, req.StartingToken, req.Secrets = limit, token, t.Config().Secrets
		r, err := check.Try[*csi.ListSnapshotsResponse](t, req)
		for _, e := range r.GetEntries() {
			ids = append(ids, e.GetSnapshot().GetSnapshotId())
		}
		return ids, r.GetNextToken(), err
	}}
}

func tellsNodes(t *T) {
	v := t.NewVolume()
	look := func(when string, want ...string) {
		if got := publishedNodes(t, v); !slices.Equal(got, want) {
			t.Failf("LV-08", "%s ListVolumes says that the volume is published to %q, want %q", when, got, want)
		}
		if !t.Has("GET_VOLUME") {
			return
		}
		got := check.OK[*csi.ControllerGetVolumeResponse](t, "CG-01", &csi.ControllerGetVolumeRequest{VolumeId: v.VolumeId})
		if !slices.Equal(got.GetStatus().GetPublishedNodeIds(), want) {
			t.Failf("CG-06 CG-02", "%s ControllerGetVolume says that the volume is published to %q, want %q", when, got.GetStatus().GetPublishedNodeIds(), want)
		}
	}
	look("before ControllerPublishVolume")
	v.Attach()
	look("after ControllerPublishVolume", t.NodeID())
	v.Detach()
	look("after ControllerUnpublishVolume")
}

func tellsTheSame(t *T) {
	v := t.NewVolume()
	same := func(who, clauses string, got *csi.Volume) {
		a, b := proto.Clone(v.Volume).(*csi.Volume), proto.Clone(got).(*csi.Volume)
		if b.GetCapacityBytes() == 0 {
			a.CapacityBytes = 0 // it need not be told
		}
		a.ContentSource, b.ContentSource = nil, nil
		if len(a.GetAccessibleTopology()) > 0 && len(b.GetAccessibleTopology()) == 0 {
			t.Warnf(clauses, "%s has no accessible_topology of the volume: that says it is accessible everywhere", who)
			a.AccessibleTopology = nil
		}
		if stable(a) != stable(b) {
			t.Failf(clauses, "%s says %s, and CreateVolume said %s", who, t.Text(got), t.Text(v.Volume))
		}
	}
	if t.Has("LIST_VOLUMES") {
		e := volumeIDs(t)[v.VolumeId]
		if e == nil {
			t.Fatalf("LV-02", "ListVolumes does not have %s", v.VolumeId)
		}
		same("ListVolumes", "LV-02 CV-42", e.GetVolume())
	}
	if t.Has("GET_VOLUME") {
		same("ControllerGetVolume", "CG-02 CV-42", check.OK[*csi.ControllerGetVolumeResponse](t, "CG-01", &csi.ControllerGetVolumeRequest{VolumeId: v.VolumeId}).GetVolume())
	}
}

func listsMembers(t *T) {
	v := t.NewVolume()
	g := newGroup(t, v.VolumeId)
	for _, s := range snapshotsOf(t, v.VolumeId) {
		if s.GetSnapshotId() == members(g)[0] {
			if s.GetGroupSnapshotId() != g.GetGroupSnapshotId() {
				t.Failf("CS-16", "ListSnapshots says that %s is of group %q, want %q", s.GetSnapshotId(), s.GetGroupSnapshotId(), g.GetGroupSnapshotId())
			}
			return
		}
	}
	t.Failf("LS-02", "ListSnapshots does not have %s, a snapshot of a group", members(g)[0])
}

func snapshotTellsTheSame(t *T) {
	v := t.NewVolume()
	s := readySnapshot(t, v)
	same := func(who, clauses string, got *csi.Snapshot) {
		if stable(got) != stable(s) {
			t.Failf(clauses, "%s says %s, and CreateSnapshot said %s", who, t.Text(got), t.Text(s))
		}
	}
	if t.Has("LIST_SNAPSHOTS") {
		for _, got := range snapshotsOf(t, v.VolumeId) {
			same("ListSnapshots", "LS-09 LS-02", got)
		}
	}
	if t.Has("GET_SNAPSHOT") {
		same("GetSnapshot", "GS-01", check.OK[*csi.GetSnapshotResponse](t, "GS-01", &csi.GetSnapshotRequest{SnapshotId: s.GetSnapshotId(), Secrets: t.Config().Secrets}).GetSnapshot())
	}
}

func listsHealth(t *T) {
	v := t.NewVolume()
	t.NewVolume()
	t.NewVolume() // three, where a driver finds all of them ill
	token, seen := "", map[string]bool{}
	for range 10000 {
		r := check.OK[*csi.ControllerListVolumeHealthResponse](t, "LH-01", &csi.ControllerListVolumeHealthRequest{MaxEntries: 1, StartingToken: token})
		if n := len(r.GetEntries()); n > 1 {
			t.Failf("LH-05", "ControllerListVolumeHealth with max_entries 1: %d entries", n)
		}
		for _, h := range r.GetEntries() {
			if h.GetVolumeId() == v.VolumeId && len(h.GetHealthStatuses()) == 0 {
				t.Warnf("LH-04", "ControllerListVolumeHealth has %s, a healthy volume", v.VolumeId)
			}
		}
		if token = r.GetNextToken(); token == "" {
			return
		}
		if seen[token] {
			t.Fatalf("LH-05", "the token %q came twice: a walk does not end", token)
		}
		seen[token] = true
	}
}
