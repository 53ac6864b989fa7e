package co

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// runAttachDetach is kube-controller-manager's: an attachment for each volume of a
// pod, and none for what no pod uses and kubelet does not report in use
// (kubernetes v1.36.3 pkg/controller/volume/attachdetach). The detach of a node that
// does not answer for 6 minutes is left out: it is not safe, whatever a driver does.
func runAttachDetach(w *world, k *kubelet) {
	w.controller(sidecarQueue, func(a *api) []string { return sortedKeys(a.pvs) }, func(name string) error {
		w.updateIf(func(a *api) bool {
			wanted := k.volumes[name] != nil
			for _, p := range a.pods {
				wanted = wanted || volumeOf(a, p) == name && !p.deleted
			}
			va, v := a.vas[name], a.pvs[name]
			switch {
			case wanted && va == nil && v != nil && !v.deleting:
				a.vas[name] = &attachment{pv: name}
			case !wanted && va != nil && !va.deleting:
				va.deleting = true
			default:
				return false
			}
			return true
		})
		return nil
	})
}

// updateIf tells whether it changed anything.
func (w *world) updateIf(f func(a *api) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f(w.api) {
		w.touch()
	}
}

// kubernetes is all components.
type kubernetes struct {
	*world
	kubelet     *kubelet
	provisioner *provisioner
}

func newKubernetes(w *world) *kubernetes {
	p := runProvisioner(w)
	runAttacher(w)
	runResizer(w)
	runSnapshotter(w)
	k := runKubelet(w)
	runAttachDetach(w, k)
	return &kubernetes{w, k, p}
}

// What people do.

func (k *kubernetes) claim(c claim) {
	if c.size == 0 {
		c.size = 64 * mi
	}
	k.update(func(a *api) { a.claims[c.name] = &c })
}

func (k *kubernetes) bound(name string) {
	k.until(name+" is bound", func(a *api) bool { return a.claims[name].bound && a.pvs[volumeName(name)] != nil })
}

func (k *kubernetes) start(name, claim string) {
	k.update(func(a *api) { a.pods[name] = &pod{name: name, claim: claim} })
}

func (k *kubernetes) running(name string) {
	k.until(name+" runs", func(a *api) bool { return a.pods[name].running })
}

func (k *kubernetes) stop(name string) {
	k.update(func(a *api) { a.pods[name].deleted = true })
}

func (k *kubernetes) stopped(name string) {
	k.until(name+" is gone", func(a *api) bool { return a.pods[name] == nil })
}

// drop deletes a claim; what is bound to it is released.
func (k *kubernetes) drop(name string) {
	k.update(func(a *api) {
		delete(a.claims, name)
		if v := a.pvs[volumeName(name)]; v != nil {
			v.deleting = true
		}
	})
}

// gone waits until the orchestrator believes that there is nothing any more, and
// then nothing must be there.
func (k *kubernetes) gone() {
	k.until("nothing is left", func(a *api) bool {
		return len(a.claims)+len(a.pvs)+len(a.vas)+len(a.pods)+len(a.contents)+len(a.contentsG) == 0 && len(k.kubelet.volumes) == 0
	})
	// A claim that is in progress without its object is asked for again first.
	k.settle()
	k.nothing(true)
}

// settle lets the provisioner come to an end with what it remembers alone.
func (k *kubernetes) settle() {
	for range 200 {
		time.Sleep(time.Minute)
		idle := read(k.world, func(a *api) bool { return len(a.pvs)+len(a.claims) == 0 && len(k.provisioner.progress) == 0 })
		if idle {
			return
		}
	}
	k.fail("the provisioner does not come to an end")
}

// true holds the storage to what is believed of each volume.
func (k *kubernetes) true() {
	believed := read(k.world, func(a *api) []pv {
		var list []pv
		for _, v := range a.pvs {
			list = append(list, *v)
		}
		return list
	})
	for _, v := range believed {
		real, err := k.eye.Volume(context.Background(), backends.VolumeRequest{ID: v.handle})
		switch {
		case v.deleting && errors.Is(err, backends.ErrNotFound):
		case err != nil:
			k.fail("%s is believed to be there: %v", v.name, err)
		case real.Capacity != v.size:
			k.fail("%s has %d bytes, and is believed to have %d", v.name, real.Capacity, v.size)
		case v.class != "" && real.Mutable["tier"] != v.class:
			k.fail("%s is of tier %q, and believed to be of %q", v.name, real.Mutable["tier"], v.class)
		}
	}
	all, _, err := k.eye.ListVolumes(context.Background(), listAll)
	if err != nil || len(all) != len(believed) {
		k.fail("%d volumes are there, %d are believed to be: %v", len(all), len(believed), err)
	}
}

// scenario is a story, and the places where something may go wrong in it.
type scenario struct {
	name   string
	places []place
	tell   func(w *world)
}

// play tells a story with a schedule, and fails with its trace.
func play(t *testing.T, name string, sc *scenario, s *schedule) {
	t.Run(name, func(t *testing.T) {
		if failures, trace := tell(t, sc, s, nil); len(failures) > 0 {
			t.Errorf("%s\nschedule: %s\n%s", strings.Join(failures, "\n"), s, strings.Join(trace, "\n"))
		}
	})
}

// tell says what went wrong in a story, and all that happened.
func tell(t *testing.T, sc *scenario, s *schedule, plant grpc.UnaryServerInterceptor) (failures, trace []string) {
	testenv.Bubble(t, func(t *testing.T) {
		w := newWorld(t, s, plant)
		sc.tell(w)
		w.close()
		failures, trace = w.failures, w.trace
	})
	return failures, trace
}

// scenarios are all stories.
func scenarios() []*scenario {
	return []*scenario{volumeStory(), blockStory(), snapshotStory(), inlineStory(), impatientStory(), nomadStory(), swarmStory()}
}

func controllerPlaces() []place {
	return []place{
		{method: "FindVolume", reads: true}, {method: "CheckVolume", reads: true}, {method: "CreateVolume", halves: true, makes: true},
		{method: "DeleteVolume", halves: true}, {method: "Volume", reads: true},
	}
}

func nodePlaces() []place {
	return []place{
		{method: "AttachVolume", makes: true}, {method: "DetachVolume"}, {method: "ListVolumes"},
		{method: "OpenVolume", halves: true, makes: true}, {method: "CloseVolume", halves: true}, {method: "RecordFormat"}, {method: "PrepareTarget"},
		{method: "engine.Stage"}, {method: "engine.Unstage"}, {method: "engine.Publish"}, {method: "engine.Unpublish"},
		{method: "kernel.Mkfs"}, {method: "kernel.Mount"}, {method: "kernel.Bind"}, {method: "kernel.Unwind"},
	}
}

// volumeStory: a claim, two pods of one node, growth, another class, a restart of
// kubelet, and all of it back.
func volumeStory() *scenario {
	places := append(controllerPlaces(), nodePlaces()...)
	places = append(places, place{method: "ExpandVolume"}, place{method: "ModifyVolume"}, place{method: "NodeExpandVolume"}, place{method: "VolumeStats"}, place{method: "kernel.Grow"})
	return &scenario{name: "volume", places: places, tell: func(w *world) {
		k := newKubernetes(w)
		k.claim(claim{name: "a"})
		k.bound("a")
		k.true()
		k.start("p1", "a")
		k.running("p1")
		k.start("p2", "a")
		k.running("p2")
		k.update(func(a *api) { a.claims["a"].size, a.claims["a"].class = 128*mi, "fast" })
		k.until("a has grown", func(a *api) bool {
			v := a.pvs[volumeName("a")]
			return v.size == 128*mi && !v.growOnNode && v.class == "fast"
		})
		k.true()
		k.kubelet.restart()
		time.Sleep(10 * time.Minute)
		k.stop("p1")
		k.stopped("p1")
		k.stop("p2")
		k.kubelet.restart()
		k.stopped("p2")
		k.drop("a")
		k.gone()
	}}
}

// snapshotStory: a snapshot that takes its time, a volume of it, a clone, a group.
func snapshotStory() *scenario {
	places := append(controllerPlaces(),
		place{method: "RestoreSnapshot", halves: true, makes: true}, place{method: "CloneVolume", halves: true, makes: true},
		place{method: "FindSnapshot", reads: true}, place{method: "CreateSnapshot", halves: true, makes: true},
		place{method: "DeleteSnapshot", halves: true}, place{method: "Snapshot", reads: true},
		place{method: "FindGroupSnapshot", reads: true}, place{method: "CreateGroupSnapshot", halves: true, makes: true},
		place{method: "DeleteGroupSnapshot", halves: true}, place{method: "GroupSnapshot", reads: true})
	return &scenario{name: "snapshot", places: places, tell: func(w *world) {
		k := newKubernetes(w)
		k.claim(claim{name: "a"})
		k.bound("a")
		handle := k.handle("a")
		k.m.store.Hold(true)
		k.update(func(a *api) { a.contents["s"] = &content{name: "s", volumes: []string{handle}} })
		k.until("s is cut", func(a *api) bool { return a.contents["s"].handle != "" })
		k.m.store.Hold(false)
		k.until("s is ready", func(a *api) bool { return a.contents["s"].ready })
		k.claim(claim{name: "restored", snapshot: k.snapshotHandle("s")})
		k.claim(claim{name: "cloned", source: handle})
		k.bound("restored")
		k.bound("cloned")
		k.update(func(a *api) {
			a.contentsG["g"] = &content{name: "g", volumes: []string{handle, a.pvs[volumeName("cloned")].handle}}
		})
		k.until("g is ready", func(a *api) bool { return a.contentsG["g"].ready })
		k.true()
		k.update(func(a *api) { a.contentsG["g"].deleted, a.contents["s"].deleted = true, true })
		for _, c := range []string{"a", "restored", "cloned"} {
			k.drop(c)
		}
		k.gone()
	}}
}

func (k *kubernetes) handle(claim string) string {
	return read(k.world, func(a *api) string { return a.pvs[volumeName(claim)].handle })
}

func (k *kubernetes) snapshotHandle(name string) string {
	return read(k.world, func(a *api) string { return a.contents[name].handle })
}

// inlineStory: a pod with a volume of its own, which kubelet forgets in between.
func inlineStory() *scenario {
	places := []place{
		{method: "CreateEphemeral", halves: true, makes: true}, {method: "DeleteEphemeral", halves: true}, {method: "OpenVolume", halves: true, makes: true},
		{method: "CloseVolume", halves: true}, {method: "PrepareTarget"}, {method: "engine.Publish"}, {method: "engine.Unpublish"},
		{method: "kernel.Mkfs"}, {method: "kernel.Mount"}, {method: "kernel.Unwind"},
	}
	return &scenario{name: "inline", places: places, tell: func(w *world) {
		k := newKubernetes(w)
		k.start("p", "")
		k.running("p")
		k.kubelet.restart()
		time.Sleep(5 * time.Minute)
		k.stop("p")
		k.stopped("p")
		k.start("q", "")
		time.Sleep(time.Second)
		k.stop("q") // while it is being made
		k.stopped("q")
		k.gone()
	}}
}

// blockStory: a pod with a raw block device, at a file and with a staging path that stays
// a directory of its own (csi_block.go).
func blockStory() *scenario {
	places := []place{
		{method: "AttachVolume", makes: true}, {method: "DetachVolume"}, {method: "OpenVolume", halves: true, makes: true}, {method: "CloseVolume", halves: true},
		{method: "RecordFormat"}, {method: "engine.Stage"}, {method: "engine.Unstage"}, {method: "engine.Publish"},
		{method: "engine.Unpublish"}, {method: "kernel.BindDevice"}, {method: "kernel.Unwind"}, {method: "ExpandVolume"}, {method: "NodeExpandVolume"},
	}
	return &scenario{name: "block", places: places, tell: func(w *world) {
		w.block = true
		k := newKubernetes(w)
		k.claim(claim{name: "a"})
		k.bound("a")
		k.start("p", "a")
		k.running("p")
		k.update(func(a *api) { a.claims["a"].size = 128 * mi })
		k.until("a has grown", func(a *api) bool {
			v := a.pvs[volumeName("a")]
			return v.size == 128*mi && !v.growOnNode
		})
		k.true()
		k.kubelet.restart()
		time.Sleep(5 * time.Minute)
		k.stop("p")
		k.stopped("p")
		k.drop("a")
		k.gone()
	}}
}

// twiceStory: a pod, and when everything of it is gone another one.
func twiceStory() *scenario {
	return &scenario{name: "twice", tell: func(w *world) {
		k := newKubernetes(w)
		k.claim(claim{name: "a"})
		k.bound("a")
		for range 2 {
			k.start("p", "a")
			k.running("p")
			k.stop("p")
			k.until("a is detached", func(a *api) bool { return len(a.vas) == 0 })
		}
		k.drop("a")
		k.gone()
	}}
}

// impatientStory: people who take away what is being made.
func impatientStory() *scenario {
	places := append(controllerPlaces(), nodePlaces()...)
	places = append(places, place{method: "CreateSnapshot", halves: true, makes: true}, place{method: "DeleteSnapshot", halves: true}, place{method: "FindSnapshot", reads: true})
	return &scenario{name: "impatient", places: places, tell: func(w *world) {
		k := newKubernetes(w)
		k.claim(claim{name: "a"})
		time.Sleep(15 * time.Second)
		k.drop("a")
		k.claim(claim{name: "b"})
		k.bound("b")
		k.start("p", "b")
		time.Sleep(5 * time.Second)
		k.stop("p")
		k.stopped("p")
		k.start("q", "b")
		time.Sleep(time.Second)
		k.kubelet.restart()
		k.stop("q")
		handle := k.handle("b")
		k.update(func(a *api) { a.contents["s"] = &content{name: "s", volumes: []string{handle}} })
		time.Sleep(time.Second)
		k.update(func(a *api) { a.contents["s"].deleted = true })
		k.stopped("q")
		k.until("s is gone", func(a *api) bool { return a.contents["s"] == nil })
		k.drop("b")
		k.gone()
	}}
}
