package csidriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// ill says what it was told of the health of volumes.
type ill struct {
	health  map[string][]backends.Health
	listed  []backends.VolumeHealth // nil: what health has
	storage []backends.StorageHealth
	failure error
	pages   []int // the limits that were asked for
	asked   backends.NodeHealthRequest
	secrets backends.Secrets
}

func withHealth(i **ill) func(*setup) {
	return func(s *setup) {
		*i = &ill{health: make(map[string][]backends.Health)}
		b := struct {
			*memory
			*ill
		}{s.backend, *i}
		s.cfg.Controller, s.cfg.Node = b, b
	}
}

func (i *ill) VolumeHealth(_ context.Context, req backends.VolumeRequest) ([]backends.Health, error) {
	i.secrets = req.Secrets
	if h, ok := i.health[req.ID]; ok || i.failure != nil {
		return h, i.failure
	}
	return nil, backends.VolumeNotFound(req.ID)
}

func (i *ill) ListVolumeHealth(_ context.Context, req backends.ListVolumeHealthRequest) ([]backends.VolumeHealth, string, error) {
	i.pages, i.secrets = append(i.pages, req.Page.Limit), req.Secrets
	if i.failure != nil {
		return nil, "", i.failure
	}
	start := 0
	if req.Page.Token != "" {
		if _, err := fmt.Sscanf(req.Page.Token, "at-%d", &start); err != nil {
			return nil, "", backends.ErrStaleToken
		}
	}
	rest := i.listed[start:]
	if len(rest) <= req.Page.Limit {
		return rest, "", nil
	}
	return rest[:req.Page.Limit], fmt.Sprint("at-", start+req.Page.Limit), nil
}

func (i *ill) NodeVolumeHealth(_ context.Context, req backends.NodeHealthRequest) ([]backends.Health, error) {
	i.asked = req
	if h, ok := i.health[req.ID]; ok || i.failure != nil {
		return h, i.failure
	}
	return nil, backends.VolumeNotFound(req.ID)
}

func (i *ill) StorageHealth(_ context.Context, req backends.StorageHealthRequest) ([]backends.StorageHealth, error) {
	i.secrets = req.Secrets
	return i.storage, i.failure
}

func degraded(reason, message string) backends.Health {
	return backends.Health{Status: backends.HealthDegraded, Reason: reason, Message: message}
}

func entry(status csi.VolumeHealthErrorType, reason, message string) *csi.VolumeHealth_VolumeHealthEntry {
	return &csi.VolumeHealth_VolumeHealthEntry{Status: status, Reason: reason, Message: message}
}

func TestVolumeHealth(t *testing.T) {
	var i *ill
	r, ctx := startRig(t, withHealth(&i)), t.Context()
	i.health["well"] = nil
	i.health["ill"] = []backends.Health{
		degraded("PoolFull", "99 %"),
		{Status: backends.HealthInaccessible, Reason: "PoolFull"},
		degraded("PoolFull", "of pool a"),
		{Status: backends.HealthDataLoss, Reason: "BackingFileShort", Message: strings.Repeat("ü", 200)},
		degraded("PoolFull", "99 %"), degraded("PoolFull", ""),
	}
	want := []*csi.VolumeHealth_VolumeHealthEntry{
		entry(csi.VolumeHealthErrorType_DEGRADED, "PoolFull", "99 %; of pool a"),
		entry(csi.VolumeHealthErrorType_INACCESSIBLE, "PoolFull", ""),
		entry(csi.VolumeHealthErrorType_DATA_LOSS, "BackingFileShort", clip(strings.Repeat("ü", 200), 96)),
	}
	check := func(id string, got *csi.VolumeHealth, err error) {
		t.Helper()
		wantCode(t, err, codes.OK)
		statuses := want
		if id == "well" {
			statuses = nil
		}
		if got == nil || !proto.Equal(got, &csi.VolumeHealth{VolumeId: id, HealthStatuses: statuses}) {
			t.Errorf("health of %s: %v", id, got)
		}
		for _, s := range got.GetHealthStatuses() {
			if len(s.GetMessage()) > maxString {
				t.Errorf("a message of %d bytes", len(s.GetMessage()))
			}
		}
	}
	for id := range i.health {
		got, err := r.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{VolumeId: id, Secrets: map[string]string{"key": "x"}})
		check(id, got.GetVolumeHealth(), err)
		if len(i.secrets.Keys()) != 1 {
			t.Error("no secrets")
		}
		onNode, err := r.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: id})
		check(id, onNode.GetVolumeHealth(), err)
	}
}

func TestHealthErrors(t *testing.T) {
	var i *ill
	r, ctx := startRig(t, withHealth(&i)), t.Context()
	get := func(want codes.Code, words ...string) {
		t.Helper()
		_, err := r.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{VolumeId: "v"})
		wantCode(t, err, want, words...)
		_, err = r.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: "v"})
		wantCode(t, err, want, words...)
	}
	get(codes.NotFound)
	for say, bad := range map[string]backends.Health{
		"status 0":    {Reason: "A"},
		"status 4":    {Status: 4, Reason: "A"},
		"is empty":    {Status: backends.HealthDegraded},
		"128 bytes":   degraded(strings.Repeat("R", 129), ""),
		"not UTF-8":   degraded("\xff", ""),
		`reason "\xf`: degraded("\xff", ""),
	} {
		i.health["v"] = []backends.Health{bad}
		get(codes.Internal, say)
	}
	i.failure = backends.VolumeNotFound("w")
	get(codes.Internal)
	i.failure = backends.ErrUnavailable
	get(codes.Unavailable)
	_, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{})
	wantCode(t, err, codes.Unavailable)
	_, err = r.NodeGetStorageHealth(ctx, &csi.NodeGetStorageHealthRequest{})
	wantCode(t, err, codes.Unavailable)
	i.failure = nil
	for say, list := range map[string][]backends.VolumeHealth{
		"no ID":    {{Health: []backends.Health{degraded("A", "")}}},
		"status 9": {{ID: "v", Health: []backends.Health{{Status: 9, Reason: "A"}}}},
	} {
		i.listed = list
		_, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{})
		wantCode(t, err, codes.Internal, say)
	}
}

// TestNodeHealthRequest: the path that a pod sees, else the staging path; and the
// State of the volume.
func TestNodeHealthRequest(t *testing.T) {
	var i *ill
	r, ctx := startRig(t, withHealth(&i)), t.Context()
	i.health["v"] = nil
	for _, tc := range []struct{ published, staged, want string }{
		{"", "", ""}, {"/t/", "", "/t"}, {"", "/s/", "/s"}, {"/t", "/s", "/t"}, {"/" + strings.Repeat("p", 3000), "", "/" + strings.Repeat("p", 3000)},
	} {
		_, err := r.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: "v", VolumePublishPath: tc.published, StagingTargetPath: tc.staged})
		wantCode(t, err, codes.OK)
		if i.asked.Path != tc.want || i.asked.ID != "v" || string(i.asked.State) != "state of v" {
			t.Errorf("%+v: the backend was asked %+v", tc, i.asked)
		}
	}
	for _, bad := range []*csi.NodeGetVolumeHealthRequest{{}, {VolumeId: "v", VolumePublishPath: "t"}, {VolumeId: "v", StagingTargetPath: "/s/../t"}} {
		_, err := r.NodeGetVolumeHealth(ctx, bad)
		wantCode(t, err, codes.InvalidArgument)
	}
}

func TestListVolumeHealth(t *testing.T) {
	var i *ill
	r, ctx := startRig(t, withHealth(&i)), t.Context()
	for n := range 10 {
		v := backends.VolumeHealth{ID: fmt.Sprint("v", n)}
		if n%2 == 0 {
			v.Health = []backends.Health{degraded("A", ""), degraded("A", "")}
		}
		i.listed = append(i.listed, v)
	}
	i.listed[9].Health = []backends.Health{degraded("A", "")}
	i.listed = append(i.listed, backends.VolumeHealth{ID: "v9", Health: []backends.Health{degraded("A", "m"), degraded("B", "")}})
	var seen []string
	for token := ""; ; {
		page, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{MaxEntries: 3, StartingToken: token, Secrets: map[string]string{"key": "x"}})
		wantCode(t, err, codes.OK)
		if len(page.GetEntries()) > 3 || len(i.secrets.Keys()) != 1 {
			t.Errorf("a page of %d entries, secrets %v", len(page.GetEntries()), i.secrets.Keys())
		}
		for _, e := range page.GetEntries() {
			seen = append(seen, fmt.Sprint(e.GetVolumeId(), len(e.GetHealthStatuses())))
		}
		if token = page.GetNextToken(); token == "" {
			break
		}
	}
	// v9 is on the last page twice.
	if want := []string{"v01", "v21", "v41", "v61", "v81", "v92"}; !slices.Equal(seen, want) {
		t.Errorf("listed %v, want %v", seen, want)
	}
	for _, token := range []string{"garbage", strings.Repeat("t", 1000)} {
		_, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{StartingToken: token})
		wantCode(t, err, codes.Aborted)
	}
	_, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument)
}

func TestStorageHealth(t *testing.T) {
	var i *ill
	r, ctx := startRig(t, withHealth(&i)), t.Context()
	block := func(flag string) *backends.Capability {
		return &backends.Capability{Mode: backends.SingleNodeWriter, Block: true, Flags: backends.NewFlags(flag)}
	}
	mount := &backends.Capability{Mode: backends.MultiNodeReader, FSType: "xfs", Group: "5", Flags: backends.NewFlags("password=canary")}
	i.storage = []backends.StorageHealth{
		{Status: backends.StorageDegraded, Reason: "PathLost", Message: "1 of 2"},
		{Status: backends.StorageDegraded, Reason: "PathLost", Capability: block("a")},
		{Status: backends.StorageDegraded, Reason: "PathLost", Capability: block("b"), Message: "m"},
		{Status: backends.StorageDegraded, Reason: "PathLost", Message: "path b"},
		{Status: backends.StorageUnreachable, Reason: "PathLost", Capability: mount},
	}
	got, err := r.NodeGetStorageHealth(ctx, &csi.NodeGetStorageHealthRequest{Secrets: map[string]string{"key": "x"}})
	wantCode(t, err, codes.OK)
	xfs := capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY)
	xfs.GetMount().FsType, xfs.GetMount().VolumeMountGroup = "xfs", "5"
	type line = csi.NodeGetStorageHealthResponse_StorageBackendHealth
	want := &csi.NodeGetStorageHealthResponse{BackendHealth: []*line{
		{Status: csi.StorageHealthErrorType_STORAGE_DEGRADED, Reason: "PathLost", Message: "1 of 2; path b"},
		{Status: csi.StorageHealthErrorType_STORAGE_DEGRADED, Reason: "PathLost", Message: "m", VolumeCapability: blockCap()},
		{Status: csi.StorageHealthErrorType_STORAGE_UNREACHABLE, Reason: "PathLost", VolumeCapability: xfs},
	}}
	if !proto.Equal(got, want) || len(i.secrets.Keys()) != 1 {
		t.Errorf("got %v, want %v", got, want)
	}
	for say, bad := range map[string]backends.StorageHealth{
		"status 0":      {Reason: "A"},
		"status 3":      {Status: 3, Reason: "A"},
		"is empty":      {Status: backends.StorageDegraded},
		"access mode 0": {Status: backends.StorageDegraded, Reason: "A", Capability: new(backends.Capability)},
	} {
		i.storage = []backends.StorageHealth{bad}
		_, err := r.NodeGetStorageHealth(ctx, &csi.NodeGetStorageHealthRequest{})
		wantCode(t, err, codes.Internal, say)
	}
	i.storage, i.failure = nil, errors.New("no answer")
	_, err = r.NodeGetStorageHealth(ctx, &csi.NodeGetStorageHealthRequest{})
	wantCode(t, err, codes.Internal)
}

// TestPagesByBytes: pages stay below 3.5 MiB, and nothing is lost or listed
// twice when one is asked for anew.
func TestPagesByBytes(t *testing.T) {
	var i *ill
	r, ctx := startRig(t, withHealth(&i)), t.Context()
	const volumes = 9000
	for n := range volumes {
		v := backends.VolumeHealth{ID: fmt.Sprint("v", n)}
		for k := range 20 {
			v.Health = append(v.Health, degraded(fmt.Sprint("R", k, strings.Repeat("r", 90)), ""))
		}
		i.listed = append(i.listed, v)
	}
	next := 0
	for token := ""; ; {
		page, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{StartingToken: token})
		wantCode(t, err, codes.OK)
		if n := proto.Size(page); n > maxPageBytes {
			t.Fatalf("a page of %d bytes", n)
		}
		for _, e := range page.GetEntries() {
			if want := fmt.Sprint("v", next); e.GetVolumeId() != want {
				t.Fatalf("got %s, want %s", e.GetVolumeId(), want)
			}
			next++
		}
		if token = page.GetNextToken(); token == "" {
			break
		}
	}
	if next != volumes {
		t.Errorf("%d of %d volumes", next, volumes)
	}
	// The first page is asked for twice, the second time with what fits.
	if len(i.pages) > 8 || i.pages[0] != maxPage || i.pages[1] >= maxPage/2+1 {
		t.Errorf("asked for pages of %v", i.pages)
	}
}

func TestFewer(t *testing.T) {
	for _, tc := range []struct{ limit, size, want int }{
		{4000, 2 * maxPageBytes, 2000},
		{4000, 3 * maxPageBytes / 2, 2666},
		{4000, maxPageBytes + 1, 3600},
		{4000, 100 * maxPageBytes, 40},
		{2, 100 * maxPageBytes, 1},
		{3, maxPageBytes + 1, 2},
	} {
		if got := fewer(tc.limit, tc.size); got != tc.want {
			t.Errorf("fewer(%d, %d) = %d, want %d", tc.limit, tc.size, got, tc.want)
		}
	}
}

// TestPager: after a page that was too large its driver is asked for less, and
// for more again when entries are small.
func TestPager(t *testing.T) {
	var asked []int
	l := listing[*csi.ControllerListVolumeHealthResponse]{
		pager: new(pager), name: "x",
		look: func(r *csi.ControllerListVolumeHealthResponse) (int, *string) { return len(r.Entries), &r.NextToken },
	}
	answer := func(entry string, maxEntries int32) {
		l.page = func(p backends.Page) (*csi.ControllerListVolumeHealthResponse, error) {
			asked = append(asked, p.Limit)
			resp := new(csi.ControllerListVolumeHealthResponse)
			for range p.Limit {
				resp.Entries = append(resp.Entries, &csi.VolumeHealth{VolumeId: entry})
			}
			return resp, nil
		}
		if _, err := l.answer(t.Context(), "", maxEntries); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{4 << 10, 4 << 10, 100, 100, 100, 100, 100, 100} {
		answer(strings.Repeat("x", size), 0)
	}
	answer("x", 7)
	if want := []int{10000, 894, 894, 894, 1788, 3576, 7152, 10000, 10000, 7}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
}
