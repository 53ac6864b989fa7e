package mounter_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRealSquashfuse: a file system that people use, with libfuse.
func TestRealSquashfuse(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mksquashfs", "squashfuse")
	r := newFUSERig(t)
	must(t, os.MkdirAll(r.path("tree/dir"), 0o755))
	must(t, os.WriteFile(r.path("tree/data"), []byte("in an archive"), 0o644))
	run(t, "mksquashfs", r.path("tree"), r.node.file("v"), "-quiet", "-no-progress")
	r.node.edit = func(f *backends.FUSE) {
		*f = backends.FUSE{
			Source: "archive", Subtype: "squashfuse", Options: []string{"allow_other"},
			Path: "/usr/bin/squashfuse", Args: []string{"-f", r.node.file("v"), "/dev/fd/{fd}"},
		}
	}
	r.quiet = true
	r.restart()
	r.stage("v", "")
	r.publish("v", "t")
	r.wantData("in an archive", "staging-v", "t")
	st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
	if err != nil || st.Total == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	r.kill("v", unix.SIGKILL)
	r.waitDead("t")
	r.publish("v", "t")
	r.wantData("in an archive", "staging-v", "t")
	r.unpublish("v", "t")
	r.unstage("v")
}

// TestRealFUSEHealCutShort: healing is ended at each of its steps, and the driver with
// it; the next one finishes it, with every target as it was.
func TestRealFUSEHealCutShort(t *testing.T) {
	for n := 1; ; n++ {
		var reached bool
		t.Run(fmt.Sprint(n), func(t *testing.T) { reached = healCutShort(t, n) })
		if !reached || t.Failed() {
			if n < 5 {
				t.Errorf("healing has %d steps only", n-1)
			}
			return
		}
	}
}

func healCutShort(t *testing.T, n int) (reached bool) {
	r := newFUSERig(t)
	r.quiet = true
	r.restart()
	r.volume("v", "data")
	r.stage("v", "")
	r.publish("v", "t")
	ro := r.publishReq("v", "ro")
	ro.ReadOnly, ro.Capability.Flags = true, backends.NewFlags("nodev")
	must(t, r.Publish(t.Context(), ro))
	r.kill("v", unix.SIGKILL)
	r.waitDead("t")
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	steps, closed := 0, make(chan error, 1)
	r.opts.Observer = func(string) {
		if steps++; steps == n {
			reached = true
			cut()
			go func() { closed <- r.Close() }() // which ends what it does by itself, too
		}
	}
	must(t, r.Close()) // a driver that heals by itself is no part of this
	r.Engine = nil
	r.opts.Servers = noWatcher{r.host}
	e, err := mounter.New(r.node, &r.opts)
	must(t, err)
	before := r.opts.Servers
	r.Engine = e
	must(t, e.Start(ctx))
	err = e.Publish(ctx, r.publishReq("v", "t"))
	if ctx.Err() != nil {
		must(t, <-closed)
	} else {
		must(t, errors.Join(err, e.Close()))
	}
	r.Engine = nil
	r.opts.Observer, r.opts.Servers = nil, before
	r.restart()
	must(t, r.Publish(t.Context(), r.publishReq("v", "t")))
	must(t, r.Publish(t.Context(), ro))
	r.wantData("data", "staging-v", "t", "ro")
	m, err := mnt.At(r.path("ro"))
	must(t, err)
	if o := strings.Join(m[0].Options, ","); len(m) != 1 || !strings.Contains(o, "ro,") || !strings.Contains(o, "nodev") {
		t.Errorf("%d mounts, options %s", len(m), o)
	}
	if len(r.servers()) != 1 || len(r.mounts()) != 3 {
		t.Errorf("servers %v, mounts %v", r.servers(), r.mounts())
	}
	r.unpublish("v", "t")
	r.unpublish("v", "ro")
	r.unstage("v")
	return reached
}

// inlineNode makes FUSE volumes for pods.
type inlineNode struct{ *fuseNode }

func (n inlineNode) CreateEphemeral(_ context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	return &backends.Volume{ID: "own-" + req.ID}, os.WriteFile(n.file("own-"+req.ID), []byte("inline"), 0o600)
}

func (n inlineNode) DeleteEphemeral(_ context.Context, req backends.DeleteEphemeralRequest) error {
	return os.Remove(n.file("own-" + req.ID))
}

// TestRealFUSEEphemeral: a pod's own volume is served, healed and taken away, too.
func TestRealFUSEEphemeral(t *testing.T) {
	r := newFUSERig(t)
	r.quiet = true
	restart := func() {
		if r.Engine != nil {
			must(t, r.Close())
		}
		r.opts.Servers = noWatcher{r.host}
		e, err := mounter.New(inlineNode{r.node}, &r.opts)
		must(t, err)
		must(t, e.Start(t.Context()))
		r.Engine = e
	}
	restart()
	req := mounter.PublishRequest{ID: "pod", Ephemeral: true, Path: r.path("t"), Capability: backends.Capability{Mode: backends.SingleNodeWriter}}
	must(t, r.Publish(t.Context(), req))
	r.wantData("inline", "t")
	r.kill("own-pod", unix.SIGKILL)
	r.waitDead("t")
	must(t, r.Publish(t.Context(), req))
	r.wantData("inline", "t")
	r.kill("own-pod", unix.SIGSTOP)
	restart()
	r.unpublish("pod", "t")
	if len(r.Volumes()) > 0 {
		t.Errorf("records left: %v", r.Volumes())
	}
	if _, err := os.Stat(r.node.file("own-pod")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not deleted: %v", err)
	}
}

// reopener can say from its State how a volume is served.
type reopener struct{ *fuseNode }

func (n reopener) ReopenFUSE(ctx context.Context, req backends.ReopenFUSERequest) (*backends.FUSE, error) {
	if string(req.State) != "state of "+req.ID {
		return nil, fmt.Errorf("state %q", req.State)
	}
	src, err := n.OpenVolume(ctx, backends.OpenVolumeRequest{ID: req.ID})
	return src.FUSE, err
}

// TestRealFUSEReopen: driver and host are both started anew, and the backend knows.
func TestRealFUSEReopen(t *testing.T) {
	r := newFUSERig(t)
	r.volume("v", "data")
	r.stage("v", "")
	r.publish("v", "t")
	must(t, r.Close())
	r.Engine = nil
	r.host.End(unix.SIGKILL)
	must(t, os.Remove(r.path("host.sock")))
	r.startHost()
	r.opts.Servers = r.host
	e, err := mounter.New(reopener{r.node}, &r.opts)
	must(t, err)
	must(t, e.Start(t.Context()))
	r.Engine = e
	r.until("healed", func() bool { b, err := os.ReadFile(r.path("t/data")); return err == nil && string(b) == "data" })
	r.unpublish("v", "t")
	r.unstage("v")
}

// TestRealFUSESecondStagingPath: a second staging path is a bind of the first, shares
// its server, and is healed with it.
func TestRealFUSESecondStagingPath(t *testing.T) {
	r := newFUSERig(t)
	r.quiet = true
	r.restart()
	r.volume("v", "data")
	r.stage("v", "")
	second := r.stageReq("v", "")
	second.Path = r.path("staging-2")
	must(t, r.Stage(t.Context(), second))
	r.kill("v", unix.SIGKILL)
	r.waitDead("staging-2")
	must(t, r.Stage(t.Context(), second))
	r.wantData("data", "staging-v", "staging-2")
	r.unstage("v")
	r.wantData("data", "staging-2")
	if len(r.servers()) != 1 {
		t.Errorf("servers %v", r.servers())
	}
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-2")}))
}
