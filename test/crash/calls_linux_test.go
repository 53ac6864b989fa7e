package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	mib     = 1 << 20
	tries   = 60                   // at least, and for patience
	backoff = 5 * time.Millisecond // doubles, up to half a second
)

// retry repeats a call as a CO does: until OK, for as long as the code says that
// it may still be in progress. Any other code is the end of it, and a finding.
func (e *env) retry(what string, call func(context.Context) error) error {
	wait, begun := backoff, time.Now()
	for n := 1; ; n++ {
		ctx, cancel := context.WithTimeout(e.client, 30*time.Second)
		err := call(ctx)
		cancel()
		if err == nil {
			return nil
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.Aborted, codes.DeadlineExceeded, codes.Canceled:
		default:
			return fmt.Errorf("%s, try %d: a final code: %w", what, n, err)
		}
		if n >= tries && time.Since(begun) > patience {
			return fmt.Errorf("%s: not OK after %d tries: %w", what, n, err)
		}
		time.Sleep(wait)
		wait = min(2*wait, 500*time.Millisecond)
	}
}

// steps are retried one after the other.
func (e *env) steps(all ...step) error {
	for _, s := range all {
		if err := e.retry(s.what, s.call); err != nil {
			return err
		}
	}
	return nil
}

type step struct {
	what string
	call func(context.Context) error
}

func (e *env) controller() csi.ControllerClient { return csi.NewControllerClient(e.Conn()) }
func (e *env) node() csi.NodeClient             { return csi.NewNodeClient(e.Conn()) }

// id is that of the undisturbed run: it follows from the name, and a CO that gives
// up may know it from an earlier answer.
func (e *env) id(name string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ids[e.s.name+"/"+name]
}

func (e *env) note(name, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := e.s.name + "/" + name
	if e.ids[key] == "" {
		e.ids[key] = id
	}
	if e.ids[key] != id {
		return fmt.Errorf("%s has ID %q, and had %q", name, id, e.ids[key])
	}
	return nil
}

// volume is one that a case makes.
type volume struct {
	e        *env
	name     string
	size     int64
	fsType   string // "block": none
	thick    bool
	readOnly bool // when published
	attach   bool
	from     *csi.VolumeContentSource
}

func (e *env) volume(name, fsType string) *volume {
	v := &volume{e: e, name: name, fsType: fsType, size: 16 * mib}
	if fsType == "xfs" {
		v.size = 320 * mib
	}
	return v
}

func (v *volume) id() string         { return v.e.id(v.name) }
func (v *volume) staging() string    { return v.e.path("staging-" + v.name) }
func (v *volume) target() string     { return filepath.Join(v.e.path("pods"), v.name) }
func (v *volume) data() string       { return filepath.Join(v.target(), "data") }
func (v *volume) at(path string) *at { return &at{v, path} }
func (v *volume) grown() int64       { return v.size * 3 / 2 }
func (v *volume) context() map[string]string {
	if v.attach {
		return map[string]string{"node": "node-1"}
	}
	return nil
}

func (v *volume) capability() *csi.VolumeCapability {
	c := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: v.fsType}},
	}
	if v.fsType == "block" {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}
	return c
}

func (v *volume) create(ctx context.Context) error {
	kind := "thin"
	if v.thick {
		kind = "thick"
	}
	resp, err := v.e.controller().CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: v.name, CapacityRange: &csi.CapacityRange{RequiredBytes: v.size}, VolumeCapabilities: []*csi.VolumeCapability{v.capability()},
		Parameters: map[string]string{"type": kind}, VolumeContentSource: v.from,
	})
	if err == nil {
		err = v.e.note(v.name, resp.GetVolume().GetVolumeId())
	}
	if err == nil && resp.GetVolume().GetCapacityBytes() != v.size {
		err = fmt.Errorf("capacity %d, want %d", resp.GetVolume().GetCapacityBytes(), v.size)
	}
	return err
}

func (v *volume) remove(ctx context.Context) error {
	_, err := v.e.controller().DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.id()})
	return err
}

func (v *volume) expand(ctx context.Context) error {
	_, err := v.e.controller().ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: v.id(), CapacityRange: &csi.CapacityRange{RequiredBytes: v.grown()}, VolumeCapability: v.capability()})
	return err
}

func (v *volume) nodeExpand(ctx context.Context) error {
	_, err := v.e.node().NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId: v.id(), VolumePath: v.target(), StagingTargetPath: v.staging(),
		CapacityRange: &csi.CapacityRange{RequiredBytes: v.grown()}, VolumeCapability: v.capability()})
	return err
}

func (v *volume) controllerPublish(ctx context.Context) error {
	_, err := v.e.controller().ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: v.id(), NodeId: "node-1", VolumeCapability: v.capability()})
	return err
}

func (v *volume) controllerUnpublish(ctx context.Context) error {
	_, err := v.e.controller().ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: v.id(), NodeId: "node-1"})
	return err
}

func (v *volume) publish(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(v.target()), 0o750); err != nil {
		return err
	}
	_, err := v.e.node().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: v.id(), StagingTargetPath: v.staging(), TargetPath: v.target(), VolumeCapability: v.capability(), Readonly: v.readOnly,
		PublishContext: v.context()})
	return err
}

func (v *volume) unpublish(ctx context.Context) error {
	_, err := v.e.node().NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id(), TargetPath: v.target()})
	return err
}

func (v *volume) stage(ctx context.Context) error   { return v.at(v.staging()).stage(ctx) }
func (v *volume) unstage(ctx context.Context) error { return v.at(v.staging()).unstage(ctx) }

// at is a volume at a staging path.
type at struct {
	*volume
	path string
}

func (a *at) stage(ctx context.Context) error {
	if err := os.MkdirAll(a.path, 0o750); err != nil {
		return err
	}
	_, err := a.e.node().NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: a.id(), StagingTargetPath: a.path, VolumeCapability: a.capability(), PublishContext: a.context()})
	return err
}

func (a *at) unstage(ctx context.Context) error {
	_, err := a.e.node().NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: a.id(), StagingTargetPath: a.path})
	if err != nil {
		return err
	}
	// The directory is the CO's; it is empty, and no mount point.
	if err := os.Remove(a.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// publishInline is the one call of an inline volume; its ID is the CO's.
func (v *volume) publishInline(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(v.target()), 0o750); err != nil {
		return err
	}
	_, err := v.e.node().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: "csi-" + v.name, TargetPath: v.target(), VolumeCapability: v.capability(),
		VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true", "size": "16Mi", "type": "thin"}})
	return err
}

func (v *volume) unpublishInline(ctx context.Context) error {
	_, err := v.e.node().NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-" + v.name, TargetPath: v.target()})
	return err
}

// bytesOf are those that a volume of a name is given.
func bytesOf(name string) []byte {
	seed := sha256.Sum256([]byte(name))
	return bytes.Repeat(seed[:], 256<<10/len(seed))
}

func (v *volume) file() string {
	if v.fsType == "block" {
		return v.target()
	}
	return v.data()
}

// write gives the published volume its bytes, durably.
func (v *volume) write(context.Context) error {
	f, err := os.OpenFile(v.file(), os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(bytesOf(v.name))
	return errors.Join(err, f.Sync(), f.Close())
}

// reads checks that the published volume has the bytes of the volume of a name.
func (v *volume) reads(name string) error {
	f, err := os.Open(v.file())
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	want := bytesOf(name)
	got := make([]byte, len(want))
	_, err = f.ReadAt(got, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("data of %s: %s was written, and %s is read", v.name, digest(want), digest(got))
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// use brings the volume to its target and, unless it holds something already,
// writes to it.
func (v *volume) use() []step {
	return []step{{"stage", v.stage}, {"publish", v.publish}, {"write", v.write}}
}

// drop takes the volume off the node; with what was never there, nothing happens.
func (v *volume) drop() []step {
	all := []step{{"unpublish", v.unpublish}, {"unstage", v.unstage}}
	if v.attach {
		all = append(all, step{"detach", v.controllerUnpublish})
	}
	return all
}

// end is the end of the volume's life.
func (v *volume) end() []step { return append(v.drop(), step{"delete", v.remove}) }

// has looks at the data through a target, to which it brings the volume, and takes
// it off again.
func (v *volume) has(name string) error {
	if err := v.e.steps(step{"stage", v.stage}, step{"publish", v.publish}); err != nil {
		return err
	}
	return errors.Join(v.reads(name), v.e.steps(v.drop()...))
}
