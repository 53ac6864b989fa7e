package suite

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// modelChecks: H-30, random calls against what must be so after each.
func modelChecks() []Check {
	return []Check{{ID: "H-30/random", Title: "Random sequences of calls are answered as a model of three volumes says", Clauses: "CV-02 DV-02 CP-03 CU-02 NS-02 NU-03 NP-01 NB-03 CS-02 DS-02 CE-02",
		Needs: "CREATE_DELETE_VOLUME", Run: random}}
}

// step is one call of a sequence: an operation on one of the volumes.
type step struct{ op, volume int }

// operations by name; the order is that of step.op.
var operations = []string{"create", "delete", "attach", "detach", "stage", "unstage", "publish", "unpublish", "snapshot", "delete-snapshot", "expand", "restart"}

func (s step) String() string { return fmt.Sprintf("%s %d", operations[s.op], s.volume) }

// state is what the model knows of one volume.
type state struct {
	v                           *check.Volume
	id                          string // "": there is none
	attached, staged, published bool
	snapshot                    string
	request                     *csi.CreateVolumeRequest
	snap                        *csi.CreateSnapshotRequest
	publish                     *csi.NodePublishVolumeRequest
	size                        int64
}

// world is the model while a sequence runs.
type world struct {
	t       *T
	volumes [3]state
}

func random(t *T) {
	t.Mode()
	seed := t.Config().Seed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // nobody is to be kept from guessing it
	sequences := 6
	for range sequences {
		var steps []step
		for range 40 {
			op := r.IntN(len(operations))
			if operations[op] == "restart" && r.IntN(8) > 0 {
				op = 0 // a restart takes longer than all the others
			}
			steps = append(steps, step{op, r.IntN(3)})
		}
		if wrong := play(t, steps); wrong != nil {
			steps, wrong = shrink(t, steps, wrong)
			var names []string
			for _, s := range steps {
				names = append(names, s.String())
			}
			t.Fatalf(wrong.clauses, "%s\nafter: %s\nseed %d (--seed)", wrong.text, strings.Join(names, ", "), seed)
		}
	}
}

// wrong is an answer that the model does not allow.
type wrong struct{ clauses, text string }

// shrink leaves out steps for as long as something is wrong.
func shrink(t *T, steps []step, w *wrong) ([]step, *wrong) {
	for size := len(steps) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(steps); {
			less := slices.Delete(slices.Clone(steps), from, from+size)
			if again := play(t, less); again != nil {
				steps, w = less, again
			} else {
				from += size
			}
			if t.Context().Err() != nil {
				return steps, w
			}
		}
	}
	return steps, w
}

// play makes the calls of a sequence on volumes of new names, and takes all back.
func play(t *T, steps []step) *wrong {
	w := &world{t: t}
	for i := range w.volumes {
		w.volumes[i].request = t.CreateRequest()
	}
	var found *wrong
	for _, s := range steps {
		if found = w.do(s); found != nil {
			break
		}
	}
	for i := range w.volumes {
		for _, op := range []string{"unpublish", "unstage", "detach", "delete-snapshot", "delete"} {
			if got := w.do(step{slices.Index(operations, op), i}); found == nil {
				found = got
			}
		}
	}
	return found
}

// ask makes a call that must be answered with one of the codes.
func (w *world) ask(clauses string, req proto.Message, want ...codes.Code) (proto.Message, *wrong) {
	resp, err := w.t.Try(req)
	if !slices.Contains(want, codeOf(err)) && codeOf(err) != codes.ResourceExhausted {
		return nil, &wrong{clauses, fmt.Sprintf("%s: got %s, want %v", check.Name(req), check.Describe(err), want)}
	}
	if err != nil {
		return nil, nil
	}
	return resp, nil
}

// do makes a step, if it makes sense, and notes what has changed.
func (w *world) do(st step) *wrong {
	s := &w.volumes[st.volume]
	switch operations[st.op] {
	case "create":
		return w.create(s)
	case "delete":
		return w.delete(s)
	case "snapshot", "delete-snapshot":
		return w.snapshot(s, operations[st.op] == "snapshot")
	case "expand":
		return w.expand(s)
	case "restart":
		if w.t.Config().Restart != nil && w.volumes[0].id != "" {
			restart(w.t)
		}
		return nil
	}
	if s.id == "" || !w.t.HasNode {
		return nil
	}
	return w.node(s, operations[st.op])
}

func (w *world) create(s *state) *wrong {
	if s.id != "" && s.size > s.request.GetCapacityRange().GetRequiredBytes() && s.request.GetCapacityRange().GetLimitBytes() != 0 {
		return nil
	}
	resp, bad := w.ask("CV-02 CV-01", s.request, codes.OK)
	if resp == nil {
		return bad
	}
	vol := resp.(*csi.CreateVolumeResponse).GetVolume()
	if s.id != "" && s.id != vol.GetVolumeId() {
		return &wrong{"CV-02 CV-03", fmt.Sprintf("CreateVolume %s gave %s, and it was %s", s.request.GetName(), vol.GetVolumeId(), s.id)}
	}
	if s.id == "" {
		for i := range w.volumes {
			if w.volumes[i].id == vol.GetVolumeId() {
				return &wrong{"CV-40", "two names have the volume " + vol.GetVolumeId()}
			}
		}
		s.v = &check.Volume{Volume: vol, T: w.t, Request: s.request, Cap: s.request.GetVolumeCapabilities()[0]}
		s.publish = nil
	}
	s.id, s.size = vol.GetVolumeId(), max(s.size, vol.GetCapacityBytes())
	return nil
}

func (w *world) delete(s *state) *wrong {
	if s.id == "" {
		_, bad := w.ask("DV-02", &csi.DeleteVolumeRequest{VolumeId: noVolume, Secrets: w.t.Config().Secrets}, codes.OK)
		return bad
	}
	if s.attached || s.staged || s.published {
		if !s.attached {
			return nil // what the controller may know is not the model's
		}
		_, bad := w.ask("DV-07", s.v.DeleteRequest(), codes.FailedPrecondition)
		return bad
	}
	want := []codes.Code{codes.OK}
	if s.snapshot != "" {
		want = append(want, codes.FailedPrecondition)
	}
	resp, bad := w.ask("DV-01 DV-02", s.v.DeleteRequest(), want...)
	if resp != nil {
		*s = state{request: s.request, snapshot: s.snapshot, snap: s.snap}
	}
	return bad
}

func (w *world) snapshot(s *state, make bool) *wrong {
	if !w.t.Has("CREATE_DELETE_SNAPSHOT") {
		return nil
	}
	if !make {
		if s.snapshot == "" {
			return nil
		}
		resp, bad := w.ask("DS-01 DS-02", &csi.DeleteSnapshotRequest{SnapshotId: s.snapshot, Secrets: w.t.Config().Secrets}, codes.OK)
		if resp != nil {
			s.snapshot, s.snap = "", nil
		}
		return bad
	}
	if s.id == "" || s.snap != nil && s.snap.GetSourceVolumeId() != s.id {
		return nil
	}
	if s.snap == nil {
		s.snap = w.t.SnapshotRequest(s.id)
	}
	resp, bad := w.ask("CS-02 CS-01", s.snap, codes.OK, codes.FailedPrecondition)
	if resp == nil {
		return bad
	}
	id := resp.(*csi.CreateSnapshotResponse).GetSnapshot().GetSnapshotId()
	if s.snapshot != "" && s.snapshot != id {
		return &wrong{"CS-02", fmt.Sprintf("CreateSnapshot gave %s, and it was %s", id, s.snapshot)}
	}
	s.snapshot = id
	return nil
}

func (w *world) expand(s *state) *wrong {
	if !w.t.Has("EXPAND_VOLUME") || s.id == "" || s.size == 0 || s.attached || s.staged || s.published {
		return nil
	}
	to := max(s.size, w.t.Config().ExpandSize)
	resp, bad := w.ask("CE-01 CE-02", expandRequest(s.v, to), codes.OK)
	if resp == nil {
		return bad
	}
	got := resp.(*csi.ControllerExpandVolumeResponse).GetCapacityBytes()
	if got < to {
		return &wrong{"CE-05 CE-11", fmt.Sprintf("ControllerExpandVolume to %d says %d", to, got)}
	}
	s.size = got
	return nil
}

// node makes a step on the node, in an order that a CO keeps.
func (w *world) node(s *state, op string) *wrong {
	attach, stage := w.t.Has("PUBLISH_UNPUBLISH_VOLUME"), w.t.Has("node:STAGE_UNSTAGE_VOLUME")
	var resp proto.Message
	var bad *wrong
	switch {
	case op == "attach" && attach:
		if resp, bad = w.ask("CP-03 CP-01", s.v.AttachRequest(), codes.OK); resp != nil {
			s.attached, s.v.Publish = true, resp.(*csi.ControllerPublishVolumeResponse).GetPublishContext()
		}
	case op == "detach" && attach && !s.staged && !s.published:
		if resp, bad = w.ask("CU-02 CU-01", &csi.ControllerUnpublishVolumeRequest{VolumeId: s.id, NodeId: w.t.NodeID(), Secrets: w.t.Config().Secrets}, codes.OK); resp != nil {
			s.attached = false
		}
	case op == "stage" && stage && (s.attached || !attach):
		if resp, bad = w.ask("NS-02 NS-01", s.v.StageRequest(), codes.OK); resp != nil {
			s.staged = true
		}
	case op == "unstage" && stage && !s.published:
		s.v.StageRequest() // there is a path to speak of
		if resp, bad = w.ask("NU-03 NU-01", s.v.UnstageRequest(), codes.OK); resp != nil {
			s.staged = false
		}
	case op == "publish" && (s.staged || !stage) && (s.attached || !attach):
		if s.publish == nil {
			s.publish = s.v.PublishRequest()
		}
		s.publish.PublishContext = s.v.Publish
		if resp, bad = w.ask("NP-01 NP-07", s.publish, codes.OK); resp != nil {
			s.published = true
		}
	case op == "unpublish" && s.publish != nil:
		if resp, bad = w.ask("NB-03 NB-01", s.v.UnpublishRequest(s.publish.GetTargetPath()), codes.OK); resp != nil {
			s.published = false
		}
	}
	return bad
}
