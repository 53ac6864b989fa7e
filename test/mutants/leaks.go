package mutants

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// leaks are what is left behind.
func leaks() []Mutant { return append(mountLeaks(), processLeaks()...) }

func mountLeaks() []Mutant {
	return []Mutant{
		mutant(Leak, "unpublish-leaves-mount", "NB-02 NB-04", "unpublish does nothing", func(r *Rig) {
			r.Engine.Unpublish = func(context.Context, mounter.UnpublishRequest, func(context.Context, mounter.UnpublishRequest) error) error {
				return nil
			}
		}),
		onLoop(mutant(Leak, "unstage-leaves-mount", "NU-02", "unstage does nothing", func(r *Rig) {
			r.Engine.Unstage = func(context.Context, mounter.UnstageRequest, func(context.Context, mounter.UnstageRequest) error) error {
				return nil
			}
		})),
		onLoop(mutant(Leak, "unstage-leaves-loop", "NU-02 CU-01", "the loop device stays, and the volume cannot be detached", func(r *Rig) {
			r.Close = func(context.Context, backends.CloseVolumeRequest, closeFunc) error { return nil }
		})),
		mutant(Leak, "republish-stacks", "NP-01 NB-02", "publishing again mounts again, and unpublish takes one away", republishStacks),
		mutant(Leak, "restage-stacks", "NS-02 NU-02", "staging again mounts again, and unstage takes one away", restageStacks),
		mutant(Leak, "unpublish-leaves-target", "NB-04", "the target directory stays", func(r *Rig) {
			r.Engine.Unpublish = func(ctx context.Context, req mounter.UnpublishRequest, next func(context.Context, mounter.UnpublishRequest) error) error {
				_, before := os.Lstat(req.Path)
				err := next(ctx, req)
				if err == nil && before == nil {
					err = os.MkdirAll(req.Path, 0o750)
				}
				return err
			}
		}),
		mutant(Leak, "publish-leaves-file", "NB-02", "a file beside the target is never removed", func(r *Rig) {
			reply(func(q *csi.NodePublishVolumeRequest, _ *csi.NodePublishVolumeResponse) {
				r.note(os.WriteFile(filepath.Join(filepath.Dir(q.GetTargetPath()), "mount.json"), []byte(`{"volume":"`+q.GetVolumeId()+`"}`), 0o600))
			})(r)
		}),
	}
}

func processLeaks() []Mutant {
	return []Mutant{
		mutant(Leak, "file-descriptors", "PR-12 NB-02", "ten open files more with each publish", func(r *Rig) {
			grows(r, func() {
				for range 10 {
					f, err := os.Open(os.DevNull)
					r.note(err)
					r.keep(f)
				}
			})
		}),
		mutant(Leak, "threads", "PR-12 NB-02", "ten threads more with each publish", func(r *Rig) {
			grows(r, func() {
				for range 10 {
					go func() { runtime.LockOSThread(); select {} }()
				}
			})
		}),
		mutant(Leak, "memory", "PR-12 NB-02", "sixteen MiB more with each publish", func(r *Rig) {
			grows(r, func() {
				b := make([]byte, 16<<20)
				for i := range b {
					b[i] = byte(i)
				}
				r.keep(b)
			})
		}),
		mutant(Leak, "child-left", "NU-02 NB-02 PR-12", "a helper of each stage never ends", func(r *Rig) {
			reply(func(*csi.NodeStageVolumeRequest, *csi.NodeStageVolumeResponse) {
				r.child("sleep", "1000")
			})(r)
		}),
		mutant(Leak, "zombies", "PR-12 NU-02 NB-02", "nobody waits for a helper of each stage", func(r *Rig) {
			reply(func(*csi.NodeStageVolumeRequest, *csi.NodeStageVolumeResponse) { r.child("true") })(r)
		}),
		unsure(mutant(Leak, "delete-keeps-space", "DV-01 GC-01", "the space of a deleted volume is not free again", keepsSpace)), // a storage may keep what is deleted for hours
		mutant(Leak, "failed-create-leaves-volume", "CV-23 GEN-05 LV-02", "a create that fails for its source leaves an empty volume", failedCreate),
		mutant(Leak, "failed-publish-leaves-target", "NB-04 NP-05", "a publish that fails leaves the target directory, and so does unpublish, for nothing is mounted there", failedPublish),
		mutant(Leak, "lock-beside-socket", "PR-10", "a lock file beside the socket", func(r *Rig) { beside(r, ".lock") }),
		mutant(Leak, "log-beside-socket", "PR-10 PR-13", "a log file beside the socket", func(r *Rig) { beside(r, ".log") }),
		mutant(Leak, "staging-left-dirty", "NU-02 NS-01", "a file of the driver is left in the staging directory", func(r *Rig) {
			reply(func(q *csi.NodeUnstageVolumeRequest, _ *csi.NodeUnstageVolumeResponse) {
				if info, err := os.Lstat(q.GetStagingTargetPath()); err == nil && info.IsDir() {
					r.note(os.WriteFile(filepath.Join(q.GetStagingTargetPath(), ".staged"), nil, 0o600))
				}
			})(r)
		}),
	}
}

// kept is what a driver cannot let go of.
type kept struct {
	mu   sync.Mutex
	list []any
}

func (r *Rig) keep(v any) {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	r.kept.list = append(r.kept.list, v)
}

// grows has something leak at each publish.
func grows(r *Rig, leak func()) {
	reply(func(*csi.NodePublishVolumeRequest, *csi.NodePublishVolumeResponse) { leak() })(r)
}

// child starts a program that nobody waits for before the driver ends.
func (r *Rig) child(argv ...string) {
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives the call: that is the fault
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		r.note(err)
		return
	}
	r.keep(cmd)
}

// endChildren is for drivers that are part of a test: the process of a real one ends.
func (r *Rig) endChildren() {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	for _, v := range r.kept.list {
		switch v := v.(type) {
		case *exec.Cmd:
			_ = v.Process.Kill() // it has ended, or ends now
			_ = v.Wait()         // killed
		case *os.File:
			_ = v.Close() // of /dev/null
		}
	}
	r.kept.list = nil
}

func republishStacks(r *Rig) {
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		again, err := mnt.IsMountPoint(req.Path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := next(ctx, req); err != nil || !again {
			return err
		}
		return mnt.Bind(req.StagingPath, req.Path, mnt.BindOptions{})
	}
	r.Engine.Unpublish = func(ctx context.Context, req mounter.UnpublishRequest, next func(context.Context, mounter.UnpublishRequest) error) error {
		if stack, err := mnt.At(req.Path); err == nil && len(stack) > 1 {
			_, err := mnt.Unmount(req.Path)
			return err
		}
		return next(ctx, req)
	}
}

func restageStacks(r *Rig) {
	r.Engine.Stage = func(ctx context.Context, req mounter.StageRequest, next func(context.Context, mounter.StageRequest) error) error {
		again, err := mnt.IsMountPoint(req.Path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := next(ctx, req); err != nil || !again {
			return err
		}
		return mnt.Bind(req.Path, req.Path, mnt.BindOptions{})
	}
	r.Engine.Unstage = func(ctx context.Context, req mounter.UnstageRequest, next func(context.Context, mounter.UnstageRequest) error) error {
		if stack, err := mnt.At(req.Path); err == nil && len(stack) > 1 {
			_, err := mnt.Unmount(req.Path)
			return err
		}
		return next(ctx, req)
	}
}

// keepsSpace takes the size of what was deleted off the capacity.
func keepsSpace(r *Rig) {
	var lost memory[int64]
	around(r, func(ctx context.Context, q *csi.DeleteVolumeRequest, next deleteNext) (*csi.DeleteVolumeResponse, error) {
		v, _ := r.controller().ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: q.GetVolumeId()}) // gone: nothing is lost
		resp, err := next(ctx, q)
		if err == nil {
			n, _ := lost.get("")
			lost.put("", n+v.GetVolume().GetCapacityBytes())
		}
		return resp, err
	})
	reply(func(_ *csi.GetCapacityRequest, resp *csi.GetCapacityResponse) {
		n, _ := lost.get("")
		resp.AvailableCapacity = max(resp.GetAvailableCapacity()-n, 0)
	})(r)
}

// failedCreate makes the volume before it looks for the source.
func failedCreate(r *Rig) {
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		resp, err := next(ctx, q)
		if status.Code(err) == codes.NotFound && q.GetVolumeContentSource() != nil {
			empty := proto.Clone(q).(*csi.CreateVolumeRequest)
			empty.VolumeContentSource = nil
			_, made := next(ctx, empty)
			r.note(made)
		}
		return resp, err
	})
}

// failedPublish makes the directory before it looks at anything else, and unpublish
// returns early where nothing is mounted.
func failedPublish(r *Rig) {
	var left memory[bool]
	around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err != nil && strings.HasPrefix(q.GetTargetPath(), "/") {
			r.note(os.MkdirAll(q.GetTargetPath(), 0o750))
			left.put(q.GetTargetPath(), true)
		}
		return resp, err
	})
	around(r, func(ctx context.Context, q *csi.NodeUnpublishVolumeRequest, next func(context.Context, *csi.NodeUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		if _, ok := left.get(q.GetTargetPath()); ok {
			if is, err := mnt.IsMountPoint(q.GetTargetPath()); err == nil && !is {
				return &csi.NodeUnpublishVolumeResponse{}, nil
			}
		}
		return next(ctx, q)
	})
}

// beside leaves a file beside the socket.
func beside(r *Rig, suffix string) {
	r.Listen = func(endpoint string) (net.Listener, error) {
		path := strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//") + suffix
		if err := os.WriteFile(path, []byte(time.Now().String()+"\n"), 0o600); err != nil {
			return nil, err
		}
		r.Stopping = append(r.Stopping, func(r *Rig) { r.note(os.Remove(path)) })
		return csidriver.Listen(endpoint, 0)
	}
}
