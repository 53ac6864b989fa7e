package backendtest

import (
	"errors"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/csikit/csikit/backends"
)

// CSI's limits for what a driver answers.
const (
	maxID  = 128
	maxMap = 4096
)

// valid looks at a volume that the backend gave.
func (t *T) valid(v *backends.Volume) {
	t.Helper()
	t.validID("volume ID", v.ID)
	if v.Capacity < 0 {
		t.Errorf("volume %s has %d bytes", v.ID, v.Capacity)
	}
	if v.Source.SnapshotID != "" && v.Source.VolumeID != "" {
		t.Errorf("volume %s is made of two things: %+v", v.ID, v.Source)
	}
	t.validMap("Volume.Context", v.Context)
	for _, place := range v.Topology {
		for k := range place {
			if !slices.Contains(t.b.Traits.TopologyKeys, k) {
				t.Errorf("volume %s: topology key %q is not in Traits.TopologyKeys", v.ID, k)
			}
		}
	}
}

func (t *T) validID(what, id string) {
	t.Helper()
	if id == "" || len(id) > maxID || !utf8.ValidString(id) {
		t.Errorf("%s %q: want 1 to %d bytes of UTF-8", what, id, maxID)
	}
}

func (t *T) validMap(what string, m map[string]string) {
	t.Helper()
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
		t.hides(what, k+" "+v)
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			t.Errorf("%s: %q is not UTF-8", what, k)
		}
	}
	if size > maxMap {
		t.Errorf("%s has %d bytes, CSI allows %d", what, size, maxMap)
	}
}

// fits fails the check unless v is what req asked for, and is what each way to
// look at it tells.
func (t *T) fits(v *backends.Volume, req backends.CreateVolumeRequest, from origin) {
	t.Helper()
	t.valid(v)
	if v.Capacity != 0 && v.Capacity < req.Range.Required {
		t.Errorf("volume %s has %d bytes, required were %d", v.ID, v.Capacity, req.Range.Required)
	}
	if l := req.Range.Limit; l > 0 && v.Capacity > l {
		t.Errorf("volume %s has %d bytes, the limit was %d", v.ID, v.Capacity, l)
	}
	if v.Source != from.source() {
		t.Errorf("volume %s says that it is made of %+v, asked for was %+v", v.ID, v.Source, from.source())
	}
	if v.Name != "" && v.Name != req.Name {
		t.Errorf("volume %s is called %q, asked for was %q", v.ID, v.Name, req.Name)
	}
	if v.Fingerprint != "" && v.Fingerprint != req.Fingerprint {
		t.Errorf("volume %s has fingerprint %q, given was %q", v.ID, v.Fingerprint, req.Fingerprint)
	}
	t.same("Volume", t.lookup(v.ID), v)
	found, err := t.find(t.Context(), req)
	t.must("FindVolume", err)
	if found == nil {
		t.Errorf("volume %q is not found by its name", req.Name)
		return
	}
	t.same("FindVolume", found, v)
	if t.c.VolumeLister != nil {
		t.once(v.ID)
	}
}

// once fails the check unless the volume is listed exactly once.
func (t *T) once(id string) {
	t.Helper()
	n := 0
	for _, listed := range t.list() {
		if listed == id {
			n++
		}
	}
	if n != 1 {
		t.Errorf("volume %s is in the list %d times", id, n)
	}
}

var volumeChecks = []check{
	{
		"volume/changed arguments", "unchanged and without comparing it to req", "Controller",
		func(t *T) {
			req := t.request(t.name())
			v := t.create(req.Name)
			changed := twin(req)
			changed.Size, changed.Range.Required = req.Size*2, req.Size*2
			changed.Fingerprint = "1.other"
			changed.Parameters = nil
			changed.Capabilities = []backends.Capability{{Mode: slices.Max(t.b.Traits.Modes), Block: t.b.Traits.Block}}
			found, err := t.b.Controller.FindVolume(t.Context(), changed)
			t.must("FindVolume with other arguments", err)
			t.same("FindVolume with other arguments", found, v)
			t.same("the volume afterwards", t.lookup(v.ID), v)
		},
	},
	{
		"volume/fingerprint", "It is to be kept with the volume (at most 40 characters of [a-z0-9.]) and given back in Volume.Fingerprint.", "Controller",
		func(t *T) {
			v := t.create(t.name())
			if v.Fingerprint == "" && t.lookup(v.ID).Fingerprint == "" {
				t.Skip("the backend keeps no fingerprint: csidriver then compares only what it sees")
			}
			if !regexp.MustCompile(`^[a-z0-9.]{1,40}$`).MatchString(v.Fingerprint) {
				t.Errorf("fingerprint %q", v.Fingerprint)
			}
			if t.cfg.Reopen != nil {
				t.reopen()
			}
			if got := t.lookup(v.ID).Fingerprint; got != fingerprint {
				t.Errorf("fingerprint is %q, given was %q", got, fingerprint)
			}
		},
	},
	{
		"volume/context", "given back at attach, stage and publish; the same each time, no secrets", "Controller",
		func(t *T) {
			v := t.create(t.name())
			t.create(t.name())
			for range 3 {
				t.same("context", t.lookup(v.ID).Context, v.Context)
			}
			// A caller may do with it what it likes.
			if v.Context != nil {
				kept := t.lookup(v.ID)
				kept.Context["backendtest"] = "changed by a caller"
				t.same("context, after a caller changed its own", t.lookup(v.ID).Context, v.Context)
			}
		},
	},
	{
		"volume/ID beforehand", "VolumeIDer says beforehand which ID CreateVolume will give. Pure, no I/O", "Controller VolumeIDer",
		func(t *T) {
			for range 3 {
				req := t.request(t.name())
				before, err1 := t.c.VolumeIDer.VolumeID(twin(req))
				again, err2 := t.c.VolumeIDer.VolumeID(twin(req))
				t.must("VolumeID", errors.Join(err1, err2))
				v := t.create(req.Name)
				after, err := t.c.VolumeIDer.VolumeID(twin(req))
				t.must("VolumeID", err)
				if v.ID != before || again != before || after != before {
					t.Errorf("VolumeID said %q and %q, then %q, the volume is %q", before, again, after, v.ID)
				}
			}
		},
	},
	{
		"volume/check changes nothing", "It must not change anything.", "Controller VolumeChecker",
		func(t *T) {
			req := t.request(t.name())
			ask := backends.CheckVolumeRequest{Capabilities: req.Capabilities, Parameters: req.Parameters, Size: req.Size, Secrets: req.Secrets}
			t.must("CheckVolume", t.c.VolumeChecker.CheckVolume(t.Context(), ask))
			t.gone(req, "")
			v := t.create(req.Name)
			ask.Volume = t.lookup(v.ID)
			t.must("CheckVolume of a volume", t.c.VolumeChecker.CheckVolume(t.Context(), ask))
			t.same("the volume afterwards", t.lookup(v.ID), v)
		},
	},
	{
		"volume/made again", "A free name, and a half-made volume, is VolumeNotFound(req.Name), from a VolumeIDer also of the ID.", "Controller",
		func(t *T) {
			req := t.request(t.name())
			t.gone(req, "")
			for range 3 {
				v := t.create(req.Name)
				t.must("DeleteVolume", t.remove(t.Context(), v.ID))
				t.gone(req, v.ID)
			}
		},
	},
	{
		"volume/many places", "Volume returns the volume with this ID.", "Controller",
		func(t *T) {
			want := map[string]*backends.Volume{}
			for range 5 {
				v := t.create(t.name())
				want[v.ID] = v
			}
			for id, v := range want {
				t.same("Volume", t.lookup(id), v)
			}
			if t.cfg.Reopen == nil {
				return
			}
			t.reopen()
			for id, v := range want {
				t.same("Volume, opened again", t.lookup(id), v)
			}
		},
	},
	{
		"volume/features", "every process of the driver must give the same.", "Controller",
		func(t *T) {
			t.want(t.cfg.Reopen != nil, "Reopen")
			before := t.abilities()
			t.create(t.name())
			t.reopen()
			t.same("what the backend can do, opened again", t.abilities(), before)
		},
	},
	{
		"volume/probe", "Prober answers Probe: nil is ready", "Prober",
		func(t *T) {
			for _, p := range []backends.Prober{t.c.Prober, t.n.Prober} {
				if p != nil {
					t.must("Probe", p.Probe(t.Context()))
				}
			}
		},
	},
	{
		"volume/recover", "finish or undo what an earlier process left half-made", "Controller Recoverer",
		func(t *T) {
			v := t.create(t.name())
			for range 2 {
				t.must("RecoverController", t.c.Recoverer.RecoverController(t.Context()))
			}
			t.same("a finished volume, after RecoverController", t.lookup(v.ID), v)
		},
	},
	{
		"volume/topology", "Preferred is tried in order.", "Controller Node TopologyReporter",
		func(t *T) {
			here, err := t.n.TopologyReporter.NodeTopology(t.Context())
			t.must("NodeTopology", err)
			req := t.request(t.name())
			req.Topology = backends.TopologyRequirement{Requisite: []backends.Segments{here}, Preferred: []backends.Segments{here}}
			v, err := t.provision(t.Context(), req, origin{})
			t.must("CreateVolume on this node", err)
			if !slices.ContainsFunc(v.Topology, func(s backends.Segments) bool { return covers(here, s) }) {
				t.Errorf("volume is reachable from %v, required was %v", v.Topology, here)
			}
			elsewhere := backends.Segments{}
			for k := range here {
				elsewhere[k] = "nowhere-of-backendtest"
			}
			req = t.request(t.name())
			req.Topology = backends.TopologyRequirement{Requisite: []backends.Segments{elsewhere}}
			_, err = t.provision(t.Context(), req, origin{})
			t.wantKind("CreateVolume where no node is", err, backends.ErrNoSpace, backends.ErrInvalid)
			t.gone(req, "")
		},
	},
}

// covers tells whether a node in these segments reaches what is in place.
func covers(node, place backends.Segments) bool {
	for k, v := range place {
		if node[k] != v {
			return false
		}
	}
	return true
}

// abilities are the names of the interfaces.
func (t *T) abilities() []string {
	var names []string
	for _, name := range interfaces() {
		if t.has(name) {
			names = append(names, name)
		}
	}
	return names
}
