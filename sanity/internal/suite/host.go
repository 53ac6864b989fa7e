package suite

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity/internal/check"
)

// dataSize is how much the checks write.
const dataSize = 1 << 20

// data is what a pod writes: the same for the same word.
func data(word string) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < dataSize; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", word, i))
		b.Write(sum[:])
	}
	return b.Bytes()
}

// place is where data of a published volume is: the device, or a file.
func place(t *T, target, name string) string {
	if t.Config().Block {
		return target
	}
	return filepath.Join(target, name)
}

// store writes a word's data to a published volume, down to the disk.
func store(t *T, target, word string) error {
	flags := os.O_WRONLY
	if !t.Config().Block {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(place(t, target, "csikit-data"), flags, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data(word))
	return errors.Join(err, f.Sync(), f.Close())
}

// holds tells whether a published volume has a word's data.
func holds(t *T, target, word string) error {
	f, err := os.Open(place(t, target, "csikit-data"))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	got := make([]byte, dataSize)
	if _, err := io.ReadFull(f, got); err != nil {
		return err
	}
	if !bytes.Equal(got, data(word)) {
		return fmt.Errorf("%s has other data than was written", f.Name())
	}
	return nil
}

func mustStore(t *T, clauses, target, word string) {
	if err := store(t, target, word); err != nil {
		t.Fatalf(clauses, "writing to the published volume: %v", err)
	}
}

func mustHold(t *T, clauses, when, target, word string) {
	if err := holds(t, target, word); err != nil {
		t.Failf(clauses, "%s: %v", when, err)
	}
}

// sizeAt is how big a published volume is to who uses it.
func sizeAt(t *T, target string) int64 {
	if !t.Config().Block {
		n, err := fileSystemSize(target)
		if err != nil {
			t.Fatalf("NP-07", "%v", err)
		}
		return n
	}
	f, err := os.Open(target)
	if err != nil {
		t.Fatalf("NP-06", "%v", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatalf("NP-06", "%v", err)
	}
	return n
}

// hostChecks: H-18, H-19, and what of H-14 to H-16 is about data.
func hostChecks() []Check {
	const needs = "CREATE_DELETE_VOLUME node host"
	const snap, clone = needs + " CREATE_DELETE_SNAPSHOT", needs + " CLONE_VOLUME"
	return []Check{
		{ID: "H-19/mounted", Title: "A published volume is at its target, of its type; unpublished and unstaged it is gone, and so is the target", Clauses: "NP-05 NP-06 NP-07 NB-02 NB-04 NU-02", Needs: needs, Run: mounted},
		{ID: "H-19/persists", Title: "What was written is there after unpublish, unstage, detach, and all again", Clauses: "NS-06 NU-02 NB-02 NP-07", Needs: needs, Run: persists},
		{ID: "H-19/same-data", Title: "Two volumes have their own data", Clauses: "CV-40 NP-07", Needs: needs, Run: ownData},
		{ID: "H-19/deleted-data", Title: "A new volume does not have the data of a deleted one that had its name", Clauses: "DV-01 CV-40", Needs: needs, Run: deletedData},
		{ID: "H-19/two-targets", Title: "Unpublishing one target leaves the other as it is", Clauses: "NB-02 NP-13", Needs: needs, Run: twoTargets},
		{ID: "H-19/fs-type", Title: "fs_type is the file system that is mounted, or is refused", Clauses: "NS-06", Needs: needs + " mount", Run: fsTypes},
		{ID: "H-19/mount-flags", Title: "mount_flags are those of the mount", Clauses: "NS-06 GEN-15", Needs: needs + " mount", Run: mountFlags},
		{ID: "H-19/other-flags", Title: "A target is not said to have the mount_flags of a second call when it has not", Clauses: "NP-10 NS-08", Needs: needs + " mount", Run: otherFlags},
		{ID: "H-19/quoted-flag", Title: "A mount flag with a comma in quotes is one flag", Clauses: "NS-06", Needs: needs + " mount", Run: quotedFlag},
		{ID: "H-19/mount-group", Title: "volume_mount_group can read and write", Clauses: "NS-12 NS-13", Needs: needs + " mount node:VOLUME_MOUNT_GROUP", Run: mountGroup},
		{ID: "H-19/parent", Title: "What a CO has beside the target stays", Clauses: "NB-04", Needs: needs, Run: besideStays},
		{ID: "H-19/once", Title: "Publishing ten times mounts once", Clauses: "NP-01 NS-02", Needs: needs, Run: mountsOnce},
		{ID: "H-18/readonly", Title: "A volume that is published readonly cannot be written", Clauses: "NP-08", Needs: needs, Run: readOnly},
		{ID: "H-18/beside", Title: "One target is readonly, and the other is not", Clauses: "NP-08 NP-13", Needs: needs + " mount", Run: readOnlyBeside},
		{ID: "H-18/controller", Title: "A volume that the controller published readonly cannot be written", Clauses: "CP-08", Needs: needs + " PUBLISH_UNPUBLISH_VOLUME PUBLISH_READONLY", Run: readOnlyAttach},
		{ID: "H-14/size", Title: "A raw volume has the bytes that were asked for", Clauses: "CV-27 CV-08", Needs: needs + " block", Run: rawSize},
		{ID: "H-15/grows", Title: "What a pod sees grows with the volume, and the data stays", Clauses: "CE-01 NE-01 NE-11 CE-05 CE-06", Needs: needs + " EXPAND_VOLUME", Run: grows},
		{ID: "H-15/stats", Title: "NodeGetVolumeStats tells what a pod sees, at either path", Clauses: "NG-01 NG-05 NG-06", Needs: needs + " node:GET_VOLUME_STATS", Run: stats},
		{ID: "H-16/data/restore", Title: "A restored volume has the data of its moment, and its own afterwards", Clauses: "CV-20 CS-06 CV-24", Needs: snap, Run: func(t *T) { copiesData(t, true) }},
		{ID: "H-16/data/clone", Title: "A clone has the data of its source, and its own afterwards", Clauses: "CV-21 CV-24", Needs: clone, Run: func(t *T) { copiesData(t, false) }},
		{ID: "H-16/data/clone-outlives", Title: "A clone has its data after its source is deleted", Clauses: "CV-21", Needs: clone, Run: cloneDataOutlives},
		{ID: "H-16/data/bigger", Title: "The file system of a bigger copy is as big as the volume", Clauses: "CV-24 CV-25", Needs: snap, Run: biggerCopy},
		{ID: "H-16/data/deleted", Title: "A snapshot has its data after its volume is deleted", Clauses: "DV-05 DV-04", Needs: snap, Run: dataOutlives},
	}
}

// use brings a new volume to a target.
func use(t *T) (*check.Volume, string) {
	v := t.NewVolume().ToNode()
	return v, v.PublishAt()
}

func mounted(t *T) {
	v, target := use(t)
	st, err := os.Lstat(target)
	switch {
	case err != nil:
		t.Fatalf("NP-05", "NodePublishVolume is OK, and there is no target: %v", err)
	case t.Config().Block && st.Mode()&fs.ModeDevice == 0:
		t.Failf("NP-06", "NodePublishVolume of a raw volume is OK, and its target is a %v", st.Mode())
	case !t.Config().Block && !st.IsDir():
		t.Failf("NP-07", "NodePublishVolume is OK, and its target is a %v", st.Mode())
	case !t.Config().Block:
		if is, err := mnt.IsMountPoint(target); err == nil && !is {
			t.Failf("NP-07", "NodePublishVolume is OK, and nothing is mounted at the target")
		}
	}
	v.Unpublish(target)
	if _, err := os.Lstat(target); err == nil {
		t.Failf("NB-04", "NodeUnpublishVolume is OK, and the target is still there")
	}
	v.Unstage()
	if v.Staging != "" {
		if is, err := mnt.IsMountPoint(v.Staging); err == nil && is {
			t.Failf("NU-02", "NodeUnstageVolume is OK, and something is mounted at the staging path")
		}
		if names, err := os.ReadDir(v.Staging); err == nil && len(names) > 0 {
			t.Failf("NU-02", "NodeUnstageVolume is OK, and %s is left at the staging path", names[0].Name())
		}
	}
	v.Detach()
}

func persists(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07 NS-06", target, "first")
	v.Unpublish(target)
	target = v.PublishAt()
	mustHold(t, "NS-06 NP-07", "after unpublish and publish", target, "first")
	target = nextPod(v, target)
	mustHold(t, "NS-06 NU-02", "after unstage, stage and publish", target, "first")
	mustStore(t, "NP-07", target, "second")
	target = nextPod(v, target)
	mustHold(t, "NS-06 NU-02", "the second time", target, "second")
}

// nextPod takes a volume off its node and brings it back, and gives the new target.
func nextPod(v *check.Volume, target string) string {
	v.Unpublish(target)
	v.FromNode()
	return v.ToNode().PublishAt()
}

// ownData stages both before it publishes one.
func ownData(t *T) {
	a, b := t.NewVolume().ToNode(), t.NewVolume().ToNode()
	at, bt := a.PublishAt(), b.PublishAt()
	mustStore(t, "NP-07", at, "a")
	mustStore(t, "NP-07", bt, "b")
	mustHold(t, "CV-40 NP-07", "the volume "+a.VolumeId, at, "a")
	mustHold(t, "CV-40 NP-07", "the volume "+b.VolumeId, bt, "b")
}

// optionsAt are the options of the mount at a path.
func optionsAt(t *T, path string) []string {
	stack, err := mnt.At(path)
	if err != nil || len(stack) == 0 {
		t.Fatalf("NP-07", "nothing is mounted at %s (%v)", path, err)
	}
	return slices.Concat(stack[0].Options, stack[0].Super)
}

// volumeWith makes a volume whose capability is changed, or ends the check: a driver may
// refuse it.
func volumeWith(t *T, change func(*csi.VolumeCapability_MountVolume)) *check.Volume {
	t.Mode()
	req := t.CreateRequest()
	change(req.GetVolumeCapabilities()[0].GetMount())
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		t.NotApplicable("CreateVolume refuses it: %s", check.Describe(err))
	}
	return &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
}

// mountedWith publishes a volume whose capability is changed.
func mountedWith(t *T, clauses string, change func(*csi.VolumeCapability_MountVolume)) string {
	v := volumeWith(t, change)
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		check.OK[*csi.NodeStageVolumeResponse](t, clauses, v.StageRequest())
	}
	p := v.PublishRequest()
	check.OK[*csi.NodePublishVolumeResponse](t, clauses, p)
	return p.GetTargetPath()
}

func fsTypes(t *T) {
	served := 0
	for _, want := range []string{"ext4", "xfs"} {
		req := t.CreateRequest()
		req.GetVolumeCapabilities()[0].GetMount().FsType = want
		resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
		if err != nil {
			continue
		}
		v := &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
		v.Attach()
		if t.Has("node:STAGE_UNSTAGE_VOLUME") {
			if _, err := t.Try(v.StageRequest()); err != nil {
				continue // refused: that is right too
			}
		}
		p := v.PublishRequest()
		if _, err := t.Try(p); err != nil {
			continue
		}
		served++
		stack, err := mnt.At(p.GetTargetPath())
		if err != nil || len(stack) == 0 || stack[0].Root != "/" {
			continue // a directory of a file system that is there for more
		}
		switch got := stack[0].FSType; got {
		case want:
		case "ext3", "ext4", "xfs", "btrfs":
			t.Failf("NS-06", "fs_type is %s, and the driver has made an %s", want, got)
		default:
			t.Warnf("NS-06", "fs_type is %s, and the mount is of %s", want, got)
		}
	}
	if served == 0 {
		t.NotApplicable("the driver takes neither ext4 nor xfs")
	}
}

func mountFlags(t *T) {
	target := mountedWith(t, "NS-06", func(m *csi.VolumeCapability_MountVolume) { m.MountFlags = []string{"noatime", "nosuid"} })
	got := optionsAt(t, target)
	for _, want := range []string{"noatime", "nosuid"} {
		if !slices.Contains(got, want) {
			t.Failf("NS-06", "mount_flags have %s, and the mount has %q", want, got)
		}
	}
}

func besideStays(t *T) {
	v := t.NewVolume().ToNode()
	req := v.PublishRequest()
	beside := filepath.Join(filepath.Dir(req.GetTargetPath()), "vol_data.json")
	if err := os.WriteFile(beside, []byte("{}"), 0o600); err != nil {
		t.NotRun("%v", err)
	}
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", req)
	v.Unpublish(req.GetTargetPath())
	if err := os.Remove(beside); err != nil {
		t.Failf("NB-04", "what kubelet has beside the target is gone after NodeUnpublishVolume: %v", err)
	}
}

func mountsOnce(t *T) {
	v := t.NewVolume().ToNode()
	req := v.PublishRequest()
	for range 10 {
		v.Stage()
		check.OK[*csi.NodePublishVolumeResponse](t, "NP-01", req)
	}
	for _, path := range []string{req.GetTargetPath(), v.Staging} {
		if path == "" {
			continue
		}
		if stack, err := mnt.At(path); err == nil && len(stack) > 1 {
			t.Failf("NP-01 NS-02", "after ten calls %d mounts lie on each other at %s", len(stack), path)
		}
	}
}

// refusesWrites says when a target can be written.
func refusesWrites(t *T, clauses, target string) {
	if err := store(t, target, "forbidden"); err == nil {
		t.Failf(clauses, "the volume is published readonly, and can be written at %s", target)
	}
}

func readOnly(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	v.Unpublish(target)
	target = v.PublishAt(func(r *csi.NodePublishVolumeRequest) { r.Readonly = true })
	refusesWrites(t, "NP-08", target)
	mustHold(t, "NP-08", "published readonly", target, "first")
	v.Unpublish(target)
	target = v.PublishAt()
	mustStore(t, "NP-08", target, "again")
}

func readOnlyBeside(t *T) {
	v := volumeOf(t, snmw).ToNode()
	rw := v.PublishAt()
	req := v.PublishRequest()
	req.Readonly = true
	if _, err := t.Try(req); err != nil {
		t.NotApplicable("a second target is refused: %s", check.Describe(err))
	}
	refusesWrites(t, "NP-08", req.GetTargetPath())
	mustStore(t, "NP-13 NP-08", rw, "first")
	mustHold(t, "NP-13", "at the readonly target", req.GetTargetPath(), "first")
}

func readOnlyAttach(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	v.Unpublish(target)
	v.FromNode()
	req := v.AttachRequest()
	req.Readonly = true
	v.Publish = check.OK[*csi.ControllerPublishVolumeResponse](t, "CP-08", req).GetPublishContext()
	v.Stage()
	p := v.PublishRequest()
	p.Readonly = true
	if _, err := t.Try(p); err != nil {
		t.Failf("CP-08", "NodePublishVolume, readonly, of a volume that the controller published readonly: %s", check.Describe(err))
		return
	}
	refusesWrites(t, "CP-08", p.GetTargetPath())
}
