package csidriver

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

func TestSealToken(t *testing.T) {
	for _, token := range []string{"", "t", "v-0123", strings.Repeat("ä", 55), strings.Repeat("t", 111), strings.Repeat("t", 120), strings.Repeat("t", 121), strings.Repeat("t", 128)} {
		sealed := sealToken("A", token)
		if got, ok := openToken("A", sealed); got != token || !ok || len(sealed) > maxString {
			t.Errorf("%q, sealed %q, opens as %q, %v", token, sealed, got, ok)
		}
		if token == "" || len(token) > 111 {
			continue // the start, and what is the backend's to judge
		}
		for _, bad := range []string{token, sealed[1:], sealed + "x", "x" + sealed, strings.ToUpper(sealed), sealToken("B", token), sealToken("", token)} {
			if got, ok := openToken("A", bad); ok {
				t.Errorf("%q opens as %q", bad, got)
			}
		}
	}
	for _, bad := range []string{".", "aaaaaaa.", seal("A", ""), strings.Repeat("t", 129)} {
		if got, ok := openToken("A", bad); ok {
			t.Errorf("%q opens as %q", bad, got)
		}
	}
}

// TestStrangeTokens: what is no token of this very list is ABORTED, and no
// backend sees it.
func TestStrangeTokens(t *testing.T) {
	var i *ill
	r, d := startData(t, func(s *setup, d *data) {
		i = &ill{}
		s.cfg.Controller = struct {
			*data
			*ill
		}{d, i}
	})
	r.backend.add(3, nil)
	d.addSnapshots(4, "v")
	i.listed = []backends.VolumeHealth{{ID: "a", Health: []backends.Health{degraded("A", "")}}, {ID: "b", Health: []backends.Health{degraded("A", "")}}}
	list := map[string]func(string) (string, error){
		"volumes": func(token string) (string, error) {
			resp, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 1, StartingToken: token})
			return resp.GetNextToken(), err
		},
		"snapshots": func(token string) (string, error) {
			resp, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: 1, StartingToken: token})
			return resp.GetNextToken(), err
		},
		"snapshots of v": func(token string) (string, error) {
			resp, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: 1, StartingToken: token, SourceVolumeId: "v"})
			return resp.GetNextToken(), err
		},
		"health": func(token string) (string, error) {
			resp, err := r.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: 1, StartingToken: token})
			return resp.GetNextToken(), err
		},
	}
	tokens := make(map[string]string)
	for name, ask := range list {
		token, err := ask("")
		wantCode(t, err, codes.OK)
		if token == "" {
			t.Fatalf("%s: no second page", name)
		}
		tokens[name] = token
	}
	tokens["garbage"], tokens["a backend's"] = "garbage", "v000001"
	asked := 0
	d.hook = func(context.Context, string) error { asked++; return nil }
	for name, ask := range list {
		for of, token := range tokens {
			before := asked + len(i.pages)
			_, err := ask(token)
			if of == name {
				wantCode(t, err, codes.OK)
				continue
			}
			wantCode(t, err, codes.Aborted)
			if asked+len(i.pages) != before {
				t.Errorf("%s: the backend got the token of %s", name, of)
			}
		}
	}
}

// TestNoEmptyPages: pages of which csidriver leaves nothing are not answered, as
// long as there are more.
func TestNoEmptyPages(t *testing.T) {
	r, d := startData(t, nil)
	d.addSnapshots(50, "w")
	d.change("z", func(s *backends.Snapshot) { s.ID, s.VolumeID, s.Created = "z", "only", testStart })
	for limit := range int32(3) {
		ids, pages := listSnapshots(t, r, &csi.ListSnapshotsRequest{SourceVolumeId: "only", MaxEntries: limit})
		if len(ids) != 1 || pages != 1 {
			t.Errorf("max_entries %d: %q on %d pages", limit, ids, pages)
		}
	}
	asked := 0
	vast := startRig(t, func(s *setup) {
		s.backend.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) {
			c.VolumeLister = lister(func(backends.Page) ([]*backends.Volume, string, error) {
				asked++
				return nil, fmt.Sprint(asked), nil
			})
		}
	})
	resp, err := vast.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	wantCode(t, err, codes.OK)
	if resp.GetNextToken() == "" || asked != maxEmpty+1 {
		t.Errorf("asked %d times, answered %v", asked, resp)
	}
}
