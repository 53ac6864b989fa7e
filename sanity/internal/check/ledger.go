package check

import (
	"slices"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
)

// debt is something that was done, or perhaps was, and is to be taken back.
type debt struct {
	kind    string // publish, stage, attach, volume, snapshot, group; and name: an answer that did not come
	key     string
	what    string // for people
	undo    proto.Message
	clause  string
	pending int  // calls under way, of a name
	doubt   bool // no answer says that it was done
}

// ledger knows what a check owes, in the order in which it was done.
type ledger struct {
	mu      sync.Mutex
	debts   []*debt
	secrets map[string]string
}

func (l *ledger) find(kind, key string) *debt {
	for _, d := range l.debts {
		if d.kind == kind && d.key == key {
			return d
		}
	}
	return nil
}

// has tells whether something was made for certain, and is not taken back.
func (l *ledger) has(kind, key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.find(kind, key)
	return d != nil && !d.doubt
}

func (l *ledger) add(d debt) *debt {
	if old := l.find(d.kind, d.key); old != nil {
		return old
	}
	l.debts = append(l.debts, &d)
	return &d
}

func (l *ledger) remove(kind, key string) {
	l.debts = slices.DeleteFunc(l.debts, func(d *debt) bool { return d.kind == kind && d.key == key })
}

// named is what a request makes by name.
func named(req proto.Message) (kind, name string) {
	switch r := req.(type) {
	case *csi.CreateVolumeRequest:
		return "name of a volume", r.GetName()
	case *csi.CreateSnapshotRequest:
		return "name of a snapshot", r.GetName()
	case *csi.CreateVolumeGroupSnapshotRequest:
		return "name of a group", r.GetName()
	}
	return "", ""
}

// before notes a call whose answer may not come.
func (l *ledger) before(req proto.Message) {
	kind, name := named(req)
	if name == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(debt{kind: kind, key: name, what: kind + " " + name, undo: req}).pending++
}

// after notes what came of a call.
func (l *ledger) after(req, resp proto.Message, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kind, name := named(req); name != "" {
		d := l.find(kind, name)
		d.pending--
		d.doubt = d.doubt && err != nil || err != nil && transient(err)
		if d.pending == 0 && !d.doubt {
			l.remove(kind, name)
		}
	}
	if err == nil {
		l.made(resp)
		l.unmade(req)
	}
	if err == nil || transient(err) {
		if d := l.done(req); d != nil && err == nil {
			d.doubt = false
		}
	}
}

func (l *ledger) made(resp proto.Message) {
	switch r := resp.(type) {
	case *csi.CreateVolumeResponse:
		id := r.GetVolume().GetVolumeId()
		l.object(debt{kind: "volume", key: id, clause: "DV-01", undo: &csi.DeleteVolumeRequest{VolumeId: id, Secrets: l.secrets}})
	case *csi.CreateSnapshotResponse:
		id := r.GetSnapshot().GetSnapshotId()
		l.object(debt{kind: "snapshot", key: id, clause: "DS-01", undo: &csi.DeleteSnapshotRequest{SnapshotId: id, Secrets: l.secrets}})
	case *csi.CreateVolumeGroupSnapshotResponse:
		id, members := r.GetGroupSnapshot().GetGroupSnapshotId(), []string(nil)
		for _, s := range r.GetGroupSnapshot().GetSnapshots() {
			members = append(members, s.GetSnapshotId())
		}
		l.object(debt{kind: "group", key: id, clause: "GX-01",
			undo: &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: id, SnapshotIds: members, Secrets: l.secrets}})
	}
}

func (l *ledger) object(d debt) {
	if d.key != "" {
		d.what = d.kind + " " + d.key
		l.add(d)
	}
}

func (l *ledger) unmade(req proto.Message) {
	switch r := req.(type) {
	case *csi.DeleteVolumeRequest:
		l.remove("volume", r.GetVolumeId())
	case *csi.DeleteSnapshotRequest:
		l.remove("snapshot", r.GetSnapshotId())
	case *csi.DeleteVolumeGroupSnapshotRequest:
		l.remove("group", r.GetGroupSnapshotId())
	case *csi.NodeUnpublishVolumeRequest:
		l.remove("publish", r.GetVolumeId()+" "+r.GetTargetPath())
	case *csi.NodeUnstageVolumeRequest:
		l.remove("stage", r.GetVolumeId()+" "+r.GetStagingTargetPath())
	case *csi.ControllerUnpublishVolumeRequest:
		l.debts = slices.DeleteFunc(l.debts, func(d *debt) bool {
			u, ok := d.undo.(*csi.ControllerUnpublishVolumeRequest)
			return ok && u.GetVolumeId() == r.GetVolumeId() && (r.GetNodeId() == "" || r.GetNodeId() == u.GetNodeId())
		})
	}
}

// done notes what is done to a volume, or may have been.
func (l *ledger) done(req proto.Message) *debt {
	switch r := req.(type) {
	case *csi.NodePublishVolumeRequest:
		return l.add(debt{doubt: true, kind: "publish", key: r.GetVolumeId() + " " + r.GetTargetPath(), clause: "NB-01",
			what: "volume " + r.GetVolumeId() + " published at " + r.GetTargetPath(),
			undo: &csi.NodeUnpublishVolumeRequest{VolumeId: r.GetVolumeId(), TargetPath: r.GetTargetPath()}})
	case *csi.NodeStageVolumeRequest:
		return l.add(debt{doubt: true, kind: "stage", key: r.GetVolumeId() + " " + r.GetStagingTargetPath(), clause: "NU-01",
			what: "volume " + r.GetVolumeId() + " staged at " + r.GetStagingTargetPath(),
			undo: &csi.NodeUnstageVolumeRequest{VolumeId: r.GetVolumeId(), StagingTargetPath: r.GetStagingTargetPath()}})
	case *csi.ControllerPublishVolumeRequest:
		return l.add(debt{doubt: true, kind: "attach", key: r.GetVolumeId() + " " + r.GetNodeId(), clause: "CU-01",
			what: "volume " + r.GetVolumeId() + " published to node " + r.GetNodeId(),
			undo: &csi.ControllerUnpublishVolumeRequest{VolumeId: r.GetVolumeId(), NodeId: r.GetNodeId(), Secrets: l.secrets}})
	}
	return nil
}

// owed is what there is of some kinds, the latest first.
func (l *ledger) owed(kinds ...string) []*debt {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*debt
	for _, d := range slices.Backward(l.debts) {
		if slices.Contains(kinds, d.kind) {
			list = append(list, d)
		}
	}
	return list
}

// forgive takes a debt off: what it was about is not there.
func (l *ledger) forgive(d *debt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(d.kind, d.key)
}
