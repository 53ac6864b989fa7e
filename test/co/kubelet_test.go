package co

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// kubelet is the volume manager of kubernetes v1.36.3 with the CSI plugin.
//
//   - Every operation has 2 min, the question for capabilities included
//     (pkg/volume/csi/csi_plugin.go csiTimeout), and pauses of 500 ms to 2 min 2 s
//     after errors. There is one operation at a time for a volume
//     (pkg/volume/util/operationexecutor/operation_executor.go), and a connection for
//     each call (csi_client.go).
//   - CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED leave a
//     device or a target "uncertain": it is asked for again, or unstaged and
//     unpublished when no pod wants it. Every other code means that nothing is there:
//     an uncertain one becomes unmounted, its directory is removed, and it is never
//     unstaged (csi_client.go isFinalError, csi_attacher.go MountDevice,
//     csi_mounter.go SetUpAt, operation_generator.go markDeviceErrorState,
//     markVolumeErrorState). What is mounted stays mounted, whatever a repeated
//     publish answers.
//   - The directory of staging and the parent of the target are made beforehand, and
//     vol_data.json stands beside; what is mounted after OK of an unpublish is an error
//     (removeMountDir).
//   - After a restart what has a directory is uncertain, and "reconstructed": no final
//     code makes it unmounted (pkg/kubelet/volumemanager/reconciler/reconstruct.go,
//     IsVolumeReconstructed).
//   - NodeUnpublishVolume and NodeUnstageVolume are repeated after every code, and what
//     they were sent for is uncertain until OK (operation_generator.go
//     GenerateUnmountVolumeFunc, GenerateUnmountDeviceFunc).
type kubelet struct {
	w       *world
	volumes map[string]*nodeVolume // by volume, or by inline pod; guarded by w.mu

	ctx    context.Context // of this run of kubelet
	cancel context.CancelFunc
}

type mountState int

const (
	notMounted mountState = iota
	uncertain
	mounted
)

// nodeVolume is what the actual state of the world knows.
type nodeVolume struct {
	device        mountState
	reconstructed bool
	pods          map[string]*podMount
}

type podMount struct {
	state         mountState
	reconstructed bool
	republish     bool
}

const kubeletTimeout = 2 * time.Minute

func runKubelet(w *world) *kubelet {
	k := &kubelet{w: w, volumes: map[string]*nodeVolume{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	w.controller(kubeletQueue, k.keys, k.sync)
	w.every(time.Minute, k.stats)
	w.every(90*time.Second, k.requireRepublish)
	return k
}

const inline = "inline-"

// keys are called with w.mu held.
func (k *kubelet) keys(a *api) []string {
	set := map[string]bool{}
	for name := range k.volumes {
		set[name] = true
	}
	for _, p := range a.pods {
		if name := volumeOf(a, p); name != "" {
			set[name] = true
		}
	}
	return sortedKeys(set)
}

// volumeOf is "" while the claim is not bound.
func volumeOf(a *api, p *pod) string {
	if p.claim == "" {
		return inline + p.name
	}
	if name := volumeName(p.claim); a.pvs[name] != nil {
		return name
	}
	return ""
}

// step is one operation.
type step func(ctx context.Context) error

// sync does one operation after another, until there is nothing to do.
func (k *kubelet) sync(name string) error {
	for {
		k.w.mu.Lock()
		run := k.ctx
		op := k.next(name)
		k.w.mu.Unlock()
		if op == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(run, kubeletTimeout/k.w.scale)
		err := op(ctx)
		cancel()
		switch {
		case run.Err() != nil:
			return nil //nolint:nilerr // that was another run of kubelet
		case err != nil:
			return err
		}
	}
}

// next decides, as the reconciler does: first what has to go. w.mu is held.
func (k *kubelet) next(name string) step {
	a, v := k.w.api, k.volumes[name]
	if v == nil {
		v = &nodeVolume{pods: map[string]*podMount{}}
	}
	for _, p := range sortedKeys(v.pods) {
		if o := a.pods[p]; v.pods[p].state != notMounted && (o == nil || o.deleted) {
			return func(ctx context.Context) error { return k.tearDown(ctx, name, p) }
		}
	}
	var wanted []string
	for _, p := range sortedKeys(a.pods) {
		switch o := a.pods[p]; {
		case volumeOf(a, o) != name:
		case o.deleted:
			k.bury(v, p)
		default:
			wanted = append(wanted, p)
		}
	}
	inlined := strings.HasPrefix(name, inline)
	switch {
	case len(wanted) == 0 && !inlined && v.device != notMounted:
		return func(ctx context.Context) error { return k.unmountDevice(ctx, name) }
	case len(wanted) == 0:
		if k.volumes[name] != nil {
			delete(k.volumes, name) // is not in use any more
			k.w.touch()
		}
		return nil
	case !inlined && (a.vas[name] == nil || !a.vas[name].attached || a.vas[name].deleting):
		return nil // waits for the attachment
	}
	k.volumes[name] = v // in use, from now on
	if !inlined && v.device != mounted {
		return func(ctx context.Context) error { return k.mountDevice(ctx, name) }
	}
	for _, p := range wanted {
		if m := v.pods[p]; m == nil || m.state != mounted || m.republish {
			return func(ctx context.Context) error { return k.setUp(ctx, name, p) }
		}
	}
	if o := a.pvs[name]; o != nil && o.growOnNode {
		return func(ctx context.Context) error { return k.expand(ctx, name, wanted[0]) }
	}
	return nil
}

// bury takes a deleted pod away whose volume is unpublished. w.mu is held.
func (k *kubelet) bury(v *nodeVolume, pod string) {
	delete(v.pods, pod)
	delete(k.w.api.pods, pod)
	k.w.touch()
}

func (k *kubelet) staging(volume string) string {
	if k.w.block {
		return filepath.Join(k.w.dir, "volumeDevices", "staging", volume)
	}
	return filepath.Join(k.w.dir, "pv", volume, "globalmount")
}

func (k *kubelet) target(volume, pod string) string {
	if k.w.block {
		return filepath.Join(k.w.dir, "volumeDevices", "publish", volume, pod)
	}
	return filepath.Join(k.w.dir, "pods", pod, volume, "mount")
}

// change is kept unless kubelet was restarted meanwhile.
func (k *kubelet) change(ctx context.Context, name string, f func(n *nodeVolume)) {
	k.w.update(func(*api) {
		v := k.volumes[name]
		if v == nil || ctx.Err() == context.Canceled { //nolint:errorlint // Canceled itself is what a restart leaves
			return
		}
		f(v)
	})
}

// stats are asked for each volume once a minute, without a staging path.
func (k *kubelet) stats() {
	type question struct{ id, path string }
	var run context.Context
	for _, q := range read(k.w, func(a *api) (list []question) {
		run = k.ctx
		for name, v := range k.volumes {
			for p, m := range v.pods {
				if o := a.pvs[name]; o != nil && m.state == mounted {
					list = append(list, question{o.handle, k.target(name, p)})
				}
			}
		}
		return list
	}) {
		ctx, cancel := context.WithTimeout(run, kubeletTimeout/k.w.scale)
		_ = k.call(func(c csi.NodeClient) error { // old figures, and a metric of the error
			return done(c.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: q.id, VolumePath: q.path}))
		})
		cancel()
	}
}

// requireRepublish is what CSIDriver.spec.requiresRepublish asks for.
func (k *kubelet) requireRepublish() {
	k.w.update(func(*api) {
		for _, v := range k.volumes {
			for _, m := range v.pods {
				m.republish = m.state == mounted && !k.w.block
			}
		}
	})
}

// restart is one of kubelet: what has a directory is uncertain.
func (k *kubelet) restart() {
	k.w.note("        kubelet is restarted")
	k.w.update(func(a *api) {
		k.cancel()
		k.ctx, k.cancel = context.WithCancel(context.Background())
		old := k.volumes
		k.volumes = map[string]*nodeVolume{}
		for name := range old {
			n := &nodeVolume{pods: map[string]*podMount{}}
			if _, err := os.Lstat(k.staging(name)); err == nil {
				n.device, n.reconstructed = uncertain, true
			}
			for p := range a.pods { // whose directories are found
				if volumeOf(a, a.pods[p]) != name {
					continue
				}
				if _, err := os.Lstat(filepath.Dir(k.target(name, p))); err == nil {
					n.pods[p] = &podMount{state: uncertain, reconstructed: true}
				}
			}
			k.volumes[name] = n
		}
	})
}

// prepare makes the directory of path, or path itself, and vol_data.json beside it.
func prepare(path string, dir bool) error {
	if !dir {
		path = filepath.Dir(path)
	}
	return os.MkdirAll(path, 0o750)
}

func saveData(path string) error {
	return os.WriteFile(filepath.Join(filepath.Dir(path), "vol_data.json"), []byte("{}"), 0o600)
}

// removeMountDir refuses what is still mounted.
func (k *kubelet) removeMountDir(path string) error {
	if k.w.mounted(path) {
		return fmt.Errorf("%s is still mounted", path)
	}
	for _, p := range []string{path, filepath.Join(filepath.Dir(path), "vol_data.json"), filepath.Dir(path)} {
		if err := os.Remove(p); err != nil && !os.IsNotExist(err) && p == path {
			return err
		}
	}
	return nil
}
