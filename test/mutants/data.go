package mutants

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// data are faults that users lose what they wrote by, or see what others wrote.
func data() []Mutant {
	return []Mutant{
		onLoop(mutant(Data, "restage-formats", "NP-07 NS-02 NS-06 NU-02 NS-01", "each stage makes a new file system", restageFormats)),
		mutant(Data, "clone-empty", "CV-21", "a clone has none of the files", func(r *Rig) { copied(r, "CloneVolume", emptyDir) }),
		onBlock(mutant(Data, "clone-zeros", "CV-21", "a clone of a raw volume reads as zeros", cloneZeros)),
		mutant(Data, "restore-loses-tail", "CV-20", "of each file that is restored the second half is lost", func(r *Rig) { copied(r, "RestoreSnapshot", halve) }),
		mutant(Data, "restore-empty", "CV-20", "a restored volume is empty, and OK", func(r *Rig) { copied(r, "RestoreSnapshot", emptyDir) }),
		mutant(Data, "expand-empties", "CE-01 CE-05 CE-11", "a volume that grows is made anew", expandEmpties),
		onLoop(mutant(Data, "expand-truncates", "CE-01 CE-05 CE-11 NE-01", "growing a volume loses what is beyond its first 8 MiB", expandTruncates)),
		mutant(Data, "snapshot-follows-source", "CS-06 CV-20", "a snapshot has what the volume has at restore", snapshotFollows),
		mutant(Data, "snapshot-cut-late", "CS-06 CV-20", "a snapshot is cut half a second after OK", snapshotLate),
		onLoop(mutant(Data, "other-fs-type", "NS-06", "whatever fs_type is asked for, it is the default", both(
			request(func(q *csi.NodeStageVolumeRequest) { plainFS(q.GetVolumeCapability()) }),
			request(func(q *csi.NodePublishVolumeRequest) { plainFS(q.GetVolumeCapability()) })))),
		onLoop(mutant(Data, "mount-flags-ignored", "NS-06", "mount_flags are not used", both(
			request(func(q *csi.NodeStageVolumeRequest) { noFlags(q.GetVolumeCapability()) }),
			request(func(q *csi.NodePublishVolumeRequest) { noFlags(q.GetVolumeCapability()) })))),
		mutant(Data, "readonly-writable", "NP-08", "a read-only publish can be written to", readonlyWritable),
		onBlock(mutant(Data, "block-short", "CV-27 CV-08", "a raw volume is a MiB smaller than its capacity_bytes says", blockShort)),
		mutant(Data, "write-lost-at-unstage", "NU-02 NU-01 NS-06 NB-02", "what was written while staged is gone after unstage", writeLost),
		mutant(Data, "volumes-share-directory", "CV-40 NS-06 NP-07", "all volumes are one directory", volumesShare),
		mutant(Data, "deleted-data-comes-back", "DV-01 DV-02 CV-40", "a new volume has the files of the deleted one that had its name", dataComesBack),
		mutant(Data, "clone-is-source", "CV-21 CV-40", "a clone is the same directory as its source", cloneIsSource),
		mutant(Data, "unpublish-removes-data", "NB-02 NB-04 NS-06 NP-07", "unpublish removes the target with all that is in it before it unmounts", unpublishRemoves),
		mutant(Data, "publish-last-staged", "NP-07 CV-40 NP-01", "publish gives whatever was staged last", publishLastStaged),
		mutant(Data, "delete-source-empties-clone", "CV-21 DV-01", "with its source a clone loses its files", deleteEmptiesClone),
		onLoop(mutant(Data, "restore-not-grown", "CV-24 CV-08 CE-11", "a restored volume that is to be larger has the size of the snapshot, and says so", restoreNotGrown)),
	}
}

func plainFS(c *csi.VolumeCapability) {
	if c.GetMount() != nil {
		c.GetMount().FsType = ""
	}
}

func noFlags(c *csi.VolumeCapability) {
	if c.GetMount() != nil {
		c.GetMount().MountFlags = nil
	}
}

// restageFormats is the driver that does not look before mkfs.
func restageFormats(r *Rig) {
	var opened memory[bool]
	r.Open = func(ctx context.Context, req backends.OpenVolumeRequest, next openFunc) (*backends.Source, error) {
		src, err := next(ctx, req)
		if _, again := opened.get(req.ID); err != nil || req.Capability.Block || !again {
			opened.put(req.ID, true)
			return src, err
		}
		argv := []string{"mkfs.xfs", "-q", "-f", src.Device.Path}
		if req.Capability.FSType == "ext4" {
			argv = []string{"mkfs.ext4", "-q", "-F", src.Device.Path}
		}
		return src, exec.CommandContext(ctx, argv[0], argv[1:]...).Run()
	}
}

// copied spoils what was copied into a new volume of package mem.
func copied(r *Rig, method string, spoil func(dir string) error) {
	r.Faults = append(r.Faults, mem.Fault{Method: method, At: mem.After, Do: func(_ context.Context, c mem.Call) error {
		req, ok := c.Request.(backends.CreateVolumeRequest)
		if !ok {
			return nil
		}
		id, err := r.backend.VolumeID(req)
		if err != nil {
			return err
		}
		return spoil(r.volumeDir(id))
	}})
}

func emptyDir(dir string) error {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, f.Name())))
	}
	return err
}

func halve(dir string) error {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.Mode().IsRegular() {
			err = os.Truncate(filepath.Join(dir, f.Name()), info.Size()/2)
			if err != nil {
				return err
			}
		}
	}
	return err
}

// replaceDir makes the files of to those of from.
func replaceDir(from, to string) error {
	if err := emptyDir(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}

// zero makes a file read as zeros.
func zero(path string, from int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() <= from {
		return nil
	}
	return errors.Join(os.Truncate(path, from), os.Truncate(path, info.Size()))
}

func cloneZeros(r *Rig) {
	reply(func(q *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
		if q.GetVolumeContentSource().GetVolume() != nil {
			r.note(zero(r.image(resp.GetVolume().GetVolumeId()), 0))
		}
	})(r)
}

// note logs what a mutation could not do.
func (r *Rig) note(err error) {
	if err != nil {
		r.log().Error("mutation", "err", err)
	}
}

func expandEmpties(r *Rig) {
	reply(func(q *csi.ControllerExpandVolumeRequest, _ *csi.ControllerExpandVolumeResponse) {
		r.note(emptyDir(r.volumeDir(q.GetVolumeId())))
	})(r)
}

func expandTruncates(r *Rig) {
	reply(func(q *csi.ControllerExpandVolumeRequest, _ *csi.ControllerExpandVolumeResponse) {
		r.note(zero(r.image(q.GetVolumeId()), 8<<20))
	})(r)
}

func snapshotFollows(r *Rig) {
	reply(func(q *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
		id := q.GetVolumeContentSource().GetSnapshot().GetSnapshotId()
		if id == "" {
			return
		}
		snap, err := r.controller().GetSnapshot(context.Background(), &csi.GetSnapshotRequest{SnapshotId: id})
		if err == nil && r.exists(context.Background(), snap.GetSnapshot().GetSourceVolumeId()) {
			err = replaceDir(r.volumeDir(snap.GetSnapshot().GetSourceVolumeId()), r.volumeDir(resp.GetVolume().GetVolumeId()))
		}
		r.note(err)
	})(r)
}

func snapshotLate(r *Rig) {
	var cut memory[bool]
	reply(func(q *csi.CreateSnapshotRequest, resp *csi.CreateSnapshotResponse) {
		if _, again := cut.get(q.GetName()); again {
			return
		}
		cut.put(q.GetName(), true)
		go func() {
			time.Sleep(500 * time.Millisecond)
			r.note(replaceDir(r.volumeDir(q.GetSourceVolumeId()), r.volumeDir(resp.GetSnapshot().GetSnapshotId())))
		}()
	})(r)
	// Whoever restores waits for it.
	request(func(q *csi.CreateVolumeRequest) {
		if q.GetVolumeContentSource().GetSnapshot() != nil {
			time.Sleep(600 * time.Millisecond)
		}
	})(r)
}

func readonlyWritable(r *Rig) {
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		req.ReadOnly = false
		return next(ctx, req)
	}
}

// blockShort makes raw volumes of which the driver keeps a MiB for itself.
func blockShort(r *Rig) {
	const kept = 1 << 20
	raw := func(q *csi.CreateVolumeRequest) bool {
		return slices.ContainsFunc(q.GetVolumeCapabilities(), func(c *csi.VolumeCapability) bool { return c.GetBlock() != nil }) &&
			q.GetCapacityRange().GetRequiredBytes() > 2*kept && q.GetVolumeContentSource() == nil
	}
	reply(func(q *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
		if raw(q) {
			resp.GetVolume().CapacityBytes += kept
		}
	})(r)
	requestWhen(raw, func(q *csi.CreateVolumeRequest) { q.CapacityRange.RequiredBytes -= kept })(r)
}

// writeLost is a cache that nobody flushes.
func writeLost(r *Rig) {
	var before memory[[]string]
	names := func(id string) []string {
		var names []string
		files, err := os.ReadDir(r.volumeDir(id))
		r.note(err)
		for _, f := range files {
			names = append(names, f.Name())
		}
		return names
	}
	r.Open = func(ctx context.Context, req backends.OpenVolumeRequest, next openFunc) (*backends.Source, error) {
		src, err := next(ctx, req)
		if _, ok := before.get(req.ID); err == nil && !ok {
			before.put(req.ID, names(req.ID))
		}
		return src, err
	}
	r.Close = func(ctx context.Context, req backends.CloseVolumeRequest, next closeFunc) error {
		old, ok := before.get(req.ID)
		if err := next(ctx, req); err != nil || !ok {
			return err
		}
		before.drop(req.ID)
		for _, name := range names(req.ID) {
			if !slices.Contains(old, name) {
				r.note(os.RemoveAll(filepath.Join(r.volumeDir(req.ID), name)))
			}
		}
		return nil
	}
}

func volumesShare(r *Rig) {
	r.Open = func(ctx context.Context, req backends.OpenVolumeRequest, next openFunc) (*backends.Source, error) {
		src, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		src.Dir = r.volumeDir("shared")
		return src, os.MkdirAll(src.Dir, 0o755)
	}
}

func dataComesBack(r *Rig) {
	kept := func(id string) string { return filepath.Join(r.Dir, "deleted", filepath.Base(id)) }
	r.Faults = append(r.Faults, mem.Fault{Method: "DeleteVolume", At: mem.Midway, Do: func(_ context.Context, c mem.Call) error {
		r.note(errors.Join(os.MkdirAll(kept(c.Object), 0o750), replaceDir(r.volumeDir(c.Object), kept(c.Object))))
		return nil
	}})
	copied(r, "CreateVolume", func(dir string) error {
		if _, err := os.Lstat(kept(dir)); err != nil {
			return nil //nolint:nilerr // it had none before
		}
		return replaceDir(kept(dir), dir)
	})
}

// sources remembers of what volumes are clones.
func sources(r *Rig) *memory[string] {
	m := new(memory[string])
	reply(func(q *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
		if from := q.GetVolumeContentSource().GetVolume().GetVolumeId(); from != "" {
			m.put(resp.GetVolume().GetVolumeId(), from)
		}
	})(r)
	return m
}

func cloneIsSource(r *Rig) {
	from := sources(r)
	r.Open = func(ctx context.Context, req backends.OpenVolumeRequest, next openFunc) (*backends.Source, error) {
		src, err := next(ctx, req)
		if id, ok := from.get(req.ID); err == nil && ok {
			src.Dir = r.volumeDir(id)
			err = os.MkdirAll(src.Dir, 0o755)
		}
		return src, err
	}
}

func deleteEmptiesClone(r *Rig) {
	from := sources(r)
	reply(func(q *csi.DeleteVolumeRequest, _ *csi.DeleteVolumeResponse) {
		from.mu.Lock()
		defer from.mu.Unlock()
		for clone, id := range from.m {
			if id == q.GetVolumeId() {
				r.note(emptyDir(r.volumeDir(clone)))
			}
		}
	})(r)
}

func unpublishRemoves(r *Rig) {
	r.Engine.Unpublish = func(ctx context.Context, req mounter.UnpublishRequest, next func(context.Context, mounter.UnpublishRequest) error) error {
		if is, err := mnt.IsMountPoint(req.Path); err == nil && is {
			r.note(emptyDir(req.Path))
		}
		return next(ctx, req)
	}
}

func publishLastStaged(r *Rig) {
	var last memory[string]
	r.Engine.Stage = func(ctx context.Context, req mounter.StageRequest, next func(context.Context, mounter.StageRequest) error) error {
		last.put("", req.Path)
		return next(ctx, req)
	}
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		if err := next(ctx, req); err != nil {
			return err
		}
		path, ok := last.get("")
		if is, err := mnt.IsMountPoint(path); !ok || err != nil || !is || path == req.StagingPath {
			return nil //nolint:nilerr // nothing is staged there any more
		}
		return mnt.Bind(path, req.Path, mnt.BindOptions{})
	}
}

func restoreNotGrown(r *Rig) {
	request(func(q *csi.CreateVolumeRequest) {
		id := q.GetVolumeContentSource().GetSnapshot().GetSnapshotId()
		if id == "" || q.GetCapacityRange() == nil {
			return
		}
		list, err := r.controller().ListSnapshots(context.Background(), &csi.ListSnapshotsRequest{SnapshotId: id})
		if err == nil && len(list.GetEntries()) == 1 {
			q.CapacityRange.RequiredBytes = min(q.GetCapacityRange().GetRequiredBytes(), list.GetEntries()[0].GetSnapshot().GetSizeBytes())
		}
	})(r)
}
