package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	firstSize = 512 << 20 // bytes; mkfs.xfs wants 300 MiB at least
	grownSize = 768 << 20
	fileSize  = 8 << 20
)

// walk leads one volume through its life.
type walk struct {
	p      *printer
	d      *driver
	w      workspace
	fsType string
	dev    bool // the driver gives out devices, which can be expanded

	vol *csi.Volume
	sum [sha256.Size]byte
}

// walkVolume walks a volume of one file system from create to delete.
func walkVolume(ctx context.Context, d *driver, w workspace, fsType string, p *printer) error {
	k := &walk{p: p, d: d, w: w, fsType: fsType, dev: !w.rootless}
	p.section(k.name())
	for _, step := range []func(context.Context) error{
		k.create, k.stage, k.publishAndWrite, k.publishTwice, k.publishReadOnly, k.expand,
		k.killDriver, k.readBack, k.unpublish, k.unstage, k.stageAgain, k.delete,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%s: %w", k.name(), err)
		}
	}
	return nil
}

func (k *walk) name() string {
	if k.fsType == "" {
		return "directory"
	}
	return k.fsType
}

// call makes one RPC, prints it, and gives the answer.
func call[Req, Resp any](ctx context.Context, k *walk, name, what string, f func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	start := time.Now()
	resp, err := f(ctx, req)
	result := what
	if err != nil {
		result = status.Code(err).String() + ": " + status.Convert(err).Message()
	}
	k.p.rpc(name, time.Since(start), result)
	return resp, err
}

func (k *walk) capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: k.fsType}},
	}
}

func (k *walk) path(name string) string { return filepath.Join(k.w.pods(), k.name(), name) }

func (k *walk) create(ctx context.Context) error {
	req := &csi.CreateVolumeRequest{Name: "demo-" + k.name(), VolumeCapabilities: []*csi.VolumeCapability{k.capability()}}
	if k.dev {
		req.CapacityRange = &csi.CapacityRange{RequiredBytes: firstSize}
	}
	resp, err := call(ctx, k, "CreateVolume", "a volume called "+req.Name, k.d.controller().CreateVolume, req)
	if err != nil {
		return err
	}
	k.vol = resp.GetVolume()
	k.p.see("volume %s, %s", k.vol.GetVolumeId(), mib(k.vol.GetCapacityBytes()))
	return nil
}

func (k *walk) stage(ctx context.Context) error {
	return k.stageAs(ctx, "probed, formatted and mounted")
}

func (k *walk) stageAs(ctx context.Context, what string) error {
	if err := os.MkdirAll(k.path("staging"), 0o750); err != nil {
		return err
	}
	_, err := call(ctx, k, "NodeStageVolume", what, k.d.node().NodeStageVolume, &csi.NodeStageVolumeRequest{
		VolumeId: k.vol.GetVolumeId(), StagingTargetPath: k.path("staging"),
		VolumeCapability: k.capability(), VolumeContext: k.vol.GetVolumeContext(),
	})
	if err != nil {
		return err
	}
	return k.seeMount("staging")
}

func (k *walk) publish(ctx context.Context, target, what string, readOnly bool) error {
	if err := os.MkdirAll(filepath.Dir(k.path(target)), 0o750); err != nil {
		return err
	}
	_, err := call(ctx, k, "NodePublishVolume", what, k.d.node().NodePublishVolume, &csi.NodePublishVolumeRequest{
		VolumeId: k.vol.GetVolumeId(), StagingTargetPath: k.path("staging"), TargetPath: k.path(target),
		VolumeCapability: k.capability(), VolumeContext: k.vol.GetVolumeContext(), Readonly: readOnly,
	})
	return err
}

// seeMount prints the mount at a path and insists that it is one and not a stack.
func (k *walk) seeMount(name string) error {
	lines, err := mountLines(k.path(name))
	if err != nil {
		return err
	}
	k.p.see("%s", strings.Join(lines, "\n"))
	if len(lines) != 1 {
		return fmt.Errorf("%d mounts at %s, want 1", len(lines), k.path(name))
	}
	return nil
}

func (k *walk) publishAndWrite(ctx context.Context) error {
	if err := k.publish(ctx, "pod-1", "for pod-1", false); err != nil {
		return err
	}
	if err := k.seeMount("pod-1"); err != nil {
		return err
	}
	data := make([]byte, fileSize)
	_, _ = rand.Read(data) // never fails
	k.sum = sha256.Sum256(data)
	f, err := os.OpenFile(filepath.Join(k.path("pod-1"), "data"), os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	k.p.see("pod-1 wrote data: %s, sha256 %x...", mib(fileSize), k.sum[:8])
	return nil
}

func (k *walk) publishTwice(ctx context.Context) error {
	if err := k.publish(ctx, "pod-1", "again for pod-1: the same call", false); err != nil {
		return err
	}
	if err := k.seeMount("pod-1"); err != nil { // a second mount would be a stack
		return err
	}
	if err := k.publish(ctx, "pod-2", "for pod-2, a second pod on this node", false); err != nil {
		return err
	}
	if err := k.seeMount("pod-2"); err != nil {
		return err
	}
	return k.compare("pod-2")
}

func (k *walk) publishReadOnly(ctx context.Context) error {
	if err := k.publish(ctx, "pod-ro", "for pod-ro, read-only", true); err != nil {
		return err
	}
	if err := k.seeMount("pod-ro"); err != nil {
		return err
	}
	err := os.WriteFile(filepath.Join(k.path("pod-ro"), "data"), []byte("x"), 0o640)
	if !errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("a write through the read-only publish did not fail with %q: %w", syscall.EROFS.Error(), err)
	}
	k.p.see("pod-ro cannot write: %v", err)
	return k.compare("pod-ro")
}

func (k *walk) expand(ctx context.Context) error {
	if !k.dev {
		return nil
	}
	before, err := sizeOf(k.path("pod-1"))
	if err != nil {
		return err
	}
	size := &csi.CapacityRange{RequiredBytes: grownSize}
	_, err = call(ctx, k, "ControllerExpandVolume", "to "+mib(grownSize), k.d.controller().ControllerExpandVolume,
		&csi.ControllerExpandVolumeRequest{VolumeId: k.vol.GetVolumeId(), CapacityRange: size, VolumeCapability: k.capability()})
	if err != nil {
		return err
	}
	_, err = call(ctx, k, "NodeExpandVolume", "the file system too, in use", k.d.node().NodeExpandVolume,
		&csi.NodeExpandVolumeRequest{VolumeId: k.vol.GetVolumeId(), VolumePath: k.path("pod-1"), StagingTargetPath: k.path("staging"),
			CapacityRange: size, VolumeCapability: k.capability()})
	if status.Code(err) == codes.FailedPrecondition {
		k.p.see("%s cannot be grown in use by this process: the next stage does it", k.fsType)
		return nil
	}
	if err != nil {
		return err
	}
	return k.seeGrowth(before)
}

func (k *walk) seeGrowth(before int64) error {
	after, err := sizeOf(k.path("pod-1"))
	if err != nil {
		return err
	}
	k.p.see("df pod-1: %s -> %s", mib(before), mib(after))
	if after < before+(grownSize-firstSize)/2 {
		return fmt.Errorf("df says %s after growth from %s", mib(after), mib(before))
	}
	return nil
}

func (k *walk) killDriver(ctx context.Context) error {
	k.p.section(fmt.Sprintf("kill -9 %d; the pods do not notice", k.d.PID()))
	if err := k.d.Kill(); err != nil {
		return err
	}
	if err := k.compare("pod-2"); err != nil {
		return err
	}
	if err := k.d.Start(ctx); err != nil {
		return err
	}
	k.p.see("driver runs again, pid %d", k.d.PID())
	if err := k.publish(ctx, "pod-2", "repeated by the CO after the restart", false); err != nil {
		return err
	}
	return k.seeMount("pod-2")
}

func (k *walk) readBack(ctx context.Context) error {
	if err := k.compare("pod-1"); err != nil {
		return err
	}
	resp, err := call(ctx, k, "NodeGetVolumeStats", "what kubelet asks", k.d.node().NodeGetVolumeStats,
		&csi.NodeGetVolumeStatsRequest{VolumeId: k.vol.GetVolumeId(), VolumePath: k.path("pod-1"), StagingTargetPath: k.path("staging")})
	if err != nil {
		return err
	}
	for _, u := range resp.GetUsage() {
		if u.GetUnit() == csi.VolumeUsage_BYTES {
			k.p.see("%s in all, %s used", mib(u.GetTotal()), mib(u.GetUsed()))
		}
	}
	return nil
}

// compare reads the file through a pod's path and compares it with what was written.
func (k *walk) compare(pod string) error {
	b, err := os.ReadFile(filepath.Join(k.path(pod), "data"))
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != k.sum {
		return fmt.Errorf("%s reads other data than was written", pod)
	}
	k.p.see("%s reads the same %s back", pod, mib(int64(len(b))))
	return nil
}

func (k *walk) unpublish(ctx context.Context) error {
	for _, pod := range []string{"pod-1", "pod-2", "pod-ro"} {
		_, err := call(ctx, k, "NodeUnpublishVolume", pod, k.d.node().NodeUnpublishVolume,
			&csi.NodeUnpublishVolumeRequest{VolumeId: k.vol.GetVolumeId(), TargetPath: k.path(pod)})
		if err != nil {
			return err
		}
		if _, err := os.Lstat(k.path(pod)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("after unpublish, %s is still there (%w)", k.path(pod), err)
		}
	}
	return nil
}

func (k *walk) unstage(ctx context.Context) error {
	_, err := call(ctx, k, "NodeUnstageVolume", "unmounted, device closed", k.d.node().NodeUnstageVolume,
		&csi.NodeUnstageVolumeRequest{VolumeId: k.vol.GetVolumeId(), StagingTargetPath: k.path("staging")})
	if err != nil {
		return err
	}
	n, err := countMounts(filepath.Dir(k.path("staging")))
	if err != nil || n > 0 {
		return fmt.Errorf("%d mounts after unstage (%w)", n, err)
	}
	return nil
}

// stageAgain is the volume's second life: the data is there, and so is the size.
func (k *walk) stageAgain(ctx context.Context) error {
	k.p.section("the same volume for another pod")
	if err := k.stageAs(ctx, "what is there is mounted, and grown if it could not be in use"); err != nil {
		return err
	}
	if err := k.publish(ctx, "pod-1", "for pod-1", false); err != nil {
		return err
	}
	if err := k.compare("pod-1"); err != nil {
		return err
	}
	if k.dev {
		size, err := sizeOf(k.path("pod-1"))
		if err != nil {
			return err
		}
		k.p.see("df pod-1: %s", mib(size))
		if size < firstSize {
			return fmt.Errorf("df says %s, and the volume has %s", mib(size), mib(grownSize))
		}
	}
	_, err := call(ctx, k, "NodeUnpublishVolume", "pod-1", k.d.node().NodeUnpublishVolume,
		&csi.NodeUnpublishVolumeRequest{VolumeId: k.vol.GetVolumeId(), TargetPath: k.path("pod-1")})
	if err != nil {
		return err
	}
	return k.unstage(ctx)
}

func (k *walk) delete(ctx context.Context) error {
	_, err := call(ctx, k, "DeleteVolume", "and its data", k.d.controller().DeleteVolume,
		&csi.DeleteVolumeRequest{VolumeId: k.vol.GetVolumeId()})
	if err != nil {
		return err
	}
	// The staging directory and its parent are the CO's, and the CO is us.
	return errors.Join(os.Remove(k.path("staging")), os.Remove(filepath.Dir(k.path("staging"))))
}
