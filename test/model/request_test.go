package model

import (
	"fmt"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// The objects of the model. There are few, so that calls meet.
var (
	volumeNames   = []string{"va", "vb", "vc"}
	snapshotNames = []string{"sa", "sb"}
	groupNames    = []string{"ga"}
	nodeNames     = []string{"n1", "n2"}
	targetNames   = []string{"t1", "t2"}
)

const gib = 1 << 30

// object is something that the storage holds: "va", "sa", "ga".
type object string

// ids are the IDs that the storage gives to names.
var ids = func() map[object]string {
	m := map[object]string{}
	b, err := mem.New(nil)
	for _, n := range volumeNames {
		m[object(n)], _ = b.VolumeID(backends.CreateVolumeRequest{Name: n})
	}
	for _, n := range snapshotNames {
		m[object(n)], _ = b.SnapshotID(backends.CreateSnapshotRequest{Name: n})
	}
	for _, n := range groupNames {
		m[object(n)], _ = b.GroupSnapshotID(backends.CreateGroupSnapshotRequest{Name: n})
	}
	if err != nil || len(m) != len(volumeNames)+len(snapshotNames)+len(groupNames) {
		panic(fmt.Sprint("IDs: ", err, m))
	}
	return m
}()

// readable puts names in the place of IDs.
var readable = func() *strings.Replacer {
	var pairs []string
	for o, id := range ids {
		pairs = append(pairs, id, string(o))
	}
	return strings.NewReplacer(pairs...)
}()

// key is what two operations cannot hold at once, as DESIGN promises it.
type key struct {
	name   string
	shared bool
}

func meets(a, b []key, how func(a, b key) bool) bool {
	for _, x := range a {
		for _, y := range b {
			if x.name == y.name && how(x, y) {
				return true
			}
		}
	}
	return false
}

func conflict(a, b []key) bool {
	return meets(a, b, func(x, y key) bool { return !x.shared || !y.shared })
}
func touch(a, b []key) bool { return meets(a, b, func(_, _ key) bool { return true }) }

// request is a call to make, and what the model knows of it.
type request struct {
	kind    string // the RPC's name
	full    string
	in      proto.Message
	answer  func() proto.Message
	about   object   // volume, snapshot or group
	sources []object // that it reads
	path    string   // staging or target path, or node
	keys    []key    // none: no operation
	undoes  string   // the RPC whose opposite it is
	said    string   // what csidriver calls its object
	reads   bool
}

const (
	controllerService = "/csi.v1.Controller/"
	groupService      = "/csi.v1.GroupController/"
	nodeService       = "/csi.v1.Node/"
)

func capability(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
}

const (
	single = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	multi  = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
)

func sourceSnapshot(o object) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: ids[o]}}}
}

func sourceVolume(o object) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: ids[o]}}}
}

func pick(names []string, n int) object { return object(names[n%len(names)]) }

// request makes the request of an action; dir is where paths are.
func (a *action) request(dir string) *request {
	make := makers[a.kind]
	r := make(a, dir)
	service := controllerService
	switch {
	case strings.HasPrefix(r.kind, "Node"):
		service = nodeService
	case strings.Contains(r.kind, "Group"):
		service = groupService
	}
	r.full = service + r.kind
	if r.said == "" {
		r.said = ids[r.about]
	}
	return r
}

// makers are the kinds of calls.
var makers = map[string]func(a *action, dir string) *request{
	"create": func(a *action, _ string) *request { return a.create(nil) },
	"restore": func(a *action, _ string) *request {
		src := pick(snapshotNames, a.other)
		r := a.create(sourceSnapshot(src))
		r.keys, r.sources = append(r.keys, key{"snap:" + string(src), true}), []object{src}
		return r
	},
	"clone": func(a *action, _ string) *request {
		src := pick(volumeNames, a.object+1+a.other%(len(volumeNames)-1))
		r := a.create(sourceVolume(src))
		r.keys, r.sources = append(r.keys, key{"vol:" + string(src), true}), []object{src}
		return r
	},
	"delete": func(a *action, _ string) *request {
		v := pick(volumeNames, a.object)
		return &request{
			kind: "DeleteVolume", about: v, undoes: "CreateVolume", keys: []key{{"vol:" + string(v), false}, {"node:" + string(v), false}},
			in: &csi.DeleteVolumeRequest{VolumeId: ids[v], Secrets: a.secrets()}, answer: message[csi.DeleteVolumeResponse],
		}
	},
	"expand": func(a *action, _ string) *request {
		v := pick(volumeNames, a.object)
		return &request{
			kind: "ControllerExpandVolume", about: v, keys: []key{{"vol:" + string(v), false}},
			in:     &csi.ControllerExpandVolumeRequest{VolumeId: ids[v], CapacityRange: &csi.CapacityRange{RequiredBytes: gib << (1 + a.variant%2)}},
			answer: message[csi.ControllerExpandVolumeResponse],
		}
	},
	"modify": func(a *action, _ string) *request {
		v := pick(volumeNames, a.object)
		tier := []string{"standard", "fast"}[a.variant%2]
		return &request{
			kind: "ControllerModifyVolume", about: v, keys: []key{{"vol:" + string(v), false}},
			in:     &csi.ControllerModifyVolumeRequest{VolumeId: ids[v], MutableParameters: map[string]string{"tier": tier}},
			answer: message[csi.ControllerModifyVolumeResponse],
		}
	},
	"attach":        (*action).attach,
	"detach":        (*action).detach,
	"snapshot":      (*action).snapshot,
	"delsnapshot":   (*action).deleteSnapshot,
	"group":         (*action).group,
	"delgroup":      (*action).deleteGroup,
	"stage":         (*action).stage,
	"unstage":       (*action).unstage,
	"publish":       (*action).publish,
	"unpublish":     (*action).unpublish,
	"nodeexpand":    (*action).nodeExpand,
	"list":          (*action).list,
	"get":           (*action).get,
	"listsnapshots": (*action).listSnapshots,
	"getsnapshot":   (*action).getSnapshot,
	"getgroup":      (*action).getGroup,
	"stats":         (*action).stats,
}

func message[T any, P interface {
	*T
	proto.Message
}]() proto.Message {
	return P(new(T))
}

// secrets differ between repetitions, as those of a CO may.
func (a *action) secrets() map[string]string {
	return map[string]string{"password": fmt.Sprint("secret-", a.secret)}
}

func (a *action) create(source *csi.VolumeContentSource) *request {
	v := pick(volumeNames, a.object)
	r := &csi.CreateVolumeRequest{
		Name: string(v), VolumeCapabilities: []*csi.VolumeCapability{capability(single), capability(multi)},
		CapacityRange: &csi.CapacityRange{RequiredBytes: gib}, Secrets: a.secrets(),
		Parameters: map[string]string{"media": "ssd"}, VolumeContentSource: source,
	}
	switch a.variant {
	case 1:
		r.CapacityRange.RequiredBytes = 2 * gib
	case 2:
		r.Parameters["media"] = "disk"
	case 3:
		r.CapacityRange = nil // as large as its source
	}
	return &request{
		kind: "CreateVolume", about: v, said: string(v), keys: []key{{"vol:" + string(v), false}},
		in: r, answer: message[csi.CreateVolumeResponse],
	}
}

func (a *action) attach(string) *request {
	v, n := pick(volumeNames, a.object), string(pick(nodeNames, a.other))
	mode := []csi.VolumeCapability_AccessMode_Mode{single, multi}[a.variant%2]
	return &request{
		kind: "ControllerPublishVolume", about: v, path: n, said: ids[v] + " at node " + n,
		keys:   []key{{"attach:" + string(v) + "@" + n, false}, {"vol:" + string(v), mode == multi}},
		in:     &csi.ControllerPublishVolumeRequest{VolumeId: ids[v], NodeId: n, VolumeCapability: capability(mode), Secrets: a.secrets()},
		answer: message[csi.ControllerPublishVolumeResponse],
	}
}

func (a *action) detach(string) *request {
	v, n := pick(volumeNames, a.object), string(pick(nodeNames, a.other))
	r := &request{
		kind: "ControllerUnpublishVolume", about: v, path: n, said: ids[v] + " at node " + n, undoes: "ControllerPublishVolume",
		keys:   []key{{"attach:" + string(v) + "@" + n, false}, {"vol:" + string(v), true}},
		answer: message[csi.ControllerUnpublishVolumeResponse],
	}
	if a.variant == 1 {
		n, r.path, r.said, r.keys = "", "*", ids[v]+" at every node", []key{{"vol:" + string(v), false}}
	}
	r.in = &csi.ControllerUnpublishVolumeRequest{VolumeId: ids[v], NodeId: n, Secrets: a.secrets()}
	return r
}

func (a *action) snapshot(string) *request {
	s, v := pick(snapshotNames, a.other), pick(volumeNames, a.object)
	return &request{
		kind: "CreateSnapshot", about: s, said: string(s), sources: []object{v},
		keys:   []key{{"snap:" + string(s), false}, {"vol:" + string(v), true}},
		in:     &csi.CreateSnapshotRequest{Name: string(s), SourceVolumeId: ids[v], Secrets: a.secrets()},
		answer: message[csi.CreateSnapshotResponse],
	}
}

func (a *action) deleteSnapshot(string) *request {
	s := pick(snapshotNames, a.other)
	return &request{
		kind: "DeleteSnapshot", about: s, undoes: "CreateSnapshot", keys: []key{{"snap:" + string(s), false}},
		in: &csi.DeleteSnapshotRequest{SnapshotId: ids[s], Secrets: a.secrets()}, answer: message[csi.DeleteSnapshotResponse],
	}
}

func (a *action) group(string) *request {
	g := pick(groupNames, a.other)
	sources := []object{pick(volumeNames, a.object), pick(volumeNames, a.object+1)}
	if a.variant == 1 {
		sources = sources[:1]
	}
	r := &request{
		kind: "CreateVolumeGroupSnapshot", about: g, said: string(g), sources: sources,
		keys: []key{{"group:" + string(g), false}}, answer: message[csi.CreateVolumeGroupSnapshotResponse],
	}
	in := &csi.CreateVolumeGroupSnapshotRequest{Name: string(g)}
	for _, v := range sources {
		r.keys = append(r.keys, key{"vol:" + string(v), true})
		in.SourceVolumeIds = append(in.SourceVolumeIds, ids[v])
	}
	r.in = in
	return r
}

func (a *action) deleteGroup(string) *request {
	g := pick(groupNames, a.other)
	return &request{
		kind: "DeleteVolumeGroupSnapshot", about: g, undoes: "CreateVolumeGroupSnapshot", keys: []key{{"group:" + string(g), false}},
		in: &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: ids[g]}, answer: message[csi.DeleteVolumeGroupSnapshotResponse],
	}
}
