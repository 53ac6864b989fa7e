package mounter_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/fusehost"
	"github.com/csikit/csikit/mounter/internal/fusetest"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRealFUSELifecycle: two volumes, each with one server, which goes with it.
func TestRealFUSELifecycle(t *testing.T) {
	r := newFUSERig(t)
	for _, id := range []string{"a", "b"} {
		r.volume(id, "data of "+id)
		r.stage(id, "")
		r.publish(id, "t-"+id)
	}
	ro := r.publishReq("a", "ro")
	ro.ReadOnly = true
	must(t, r.Publish(t.Context(), ro))
	r.wantData("data of a", "staging-a", "t-a", "ro")
	r.wantData("data of b", "staging-b", "t-b")
	must(t, os.WriteFile(r.path("t-a/data"), []byte("new"), 0o600))
	r.wantData("new", "ro")
	if err := os.WriteFile(r.path("ro/data"), []byte("x"), 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write through the read-only target: %v", err)
	}
	infos, err := mnt.At(r.path("staging-a"))
	must(t, err)
	if m := infos[0]; len(infos) != 1 || m.FSType != "fuse.csikit-test" || m.Source != "bucket-1" || !strings.Contains(strings.Join(m.Super, ","), "allow_other") {
		t.Errorf("%+v", infos)
	}
	pid := r.pid("a")
	r.stage("a", "")
	r.publish("a", "t-a")
	if r.pid("a") != pid || len(r.servers()) != 2 {
		t.Errorf("another server was started: %v", r.servers())
	}
	st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "a", Path: r.path("t-a")})
	if err != nil || st.Total != 1000*4096 {
		t.Errorf("%+v, %v", st, err)
	}
	for _, id := range []string{"a", "b"} {
		r.unpublish(id, "t-"+id)
	}
	r.unpublish("a", "ro")
	r.unstage("a")
	if n := len(r.servers()); n != 1 {
		t.Errorf("%d servers after one of two was unstaged", n)
	}
	r.unstage("b")
	if len(r.Volumes()) > 0 || len(r.node.opens) > 0 {
		t.Errorf("left: %v %v", r.Volumes(), r.node.opens)
	}
	if found, err := r.host.Find(t.Context(), "a"); err != nil || found.State != mounter.ServerUnknown {
		t.Errorf("the host still knows it, and its secrets: %+v, %v", found, err)
	}
}

// TestRealFUSESecrets: secrets reach the server, and nothing else.
func TestRealFUSESecrets(t *testing.T) {
	r := newFUSERig(t)
	r.quiet = true // or the watcher is first
	r.restart()
	r.volume("v", "data")
	r.stage("v", "")
	st, err := r.host.Find(t.Context(), "v")
	must(t, err)
	if !strings.Contains(st.Output, "password [redacted], key [redacted]") {
		t.Errorf("the server did not get them, or they are shown: %q", st.Output)
	}
	r.kill("v", unix.SIGKILL) // which is logged
	r.waitDead("staging-v")
	r.stage("v", "")
	places := []string{r.host.Log, "/proc/" + strconv.Itoa(r.pid("v")) + "/cmdline"}
	records, err := filepath.Glob(r.state + "/v1/*")
	must(t, err)
	for _, f := range append(places, records...) {
		b, err := os.ReadFile(f)
		must(t, err)
		if len(b) == 0 || strings.Contains(string(b), "canary") {
			t.Errorf("%s: %q", f, b)
		}
	}
	r.unstage("v")
	r.node.edit = func(f *backends.FUSE) { f.Args = append(f.Args, "--password="+fusetest.Password) }
	err = r.Stage(t.Context(), r.stageReq("v", ""))
	wantKind(t, err, backends.ErrInvalid)
	if strings.Contains(err.Error(), "canary") || len(r.Volumes()) > 0 {
		t.Errorf("%v; records %v", err, r.Volumes())
	}
}

// TestRealFUSEServerDies: whoever comes first heals, and all that was there is there
// again: data, targets, read-only ones and their options.
func TestRealFUSEServerDies(t *testing.T) {
	for name, look := range map[string]func(r *fuseRig){
		"stage":   func(r *fuseRig) { r.stage("v", "") },
		"publish": func(r *fuseRig) { r.publish("v", "t") },
		"another publish": func(r *fuseRig) {
			r.publish("v", "t2")
			r.unpublish("v", "t2")
		},
		"stats": func(r *fuseRig) {
			req := mounter.StatsRequest{ID: "v", Path: r.path("t")}
			_, err := r.Stats(r.t.Context(), req)
			wantKind(r.t, err, backends.ErrUnavailable)
			r.until("healed", func() bool { _, err := r.Stats(r.t.Context(), req); return err == nil })
		},
		"driver restart": func(r *fuseRig) {
			r.restart()
			for _, name := range []string{"ro/data", "t/data"} {
				r.until("healed", func() bool { _, err := os.Stat(r.path(name)); return err == nil })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFUSERig(t)
			r.quiet = true // or the watcher is first
			r.restart()
			r.volume("v", "data")
			r.stage("v", "")
			r.publish("v", "t")
			ro := r.publishReq("v", "ro")
			ro.ReadOnly, ro.Capability.Flags = true, backends.NewFlags("noexec")
			must(t, r.Publish(t.Context(), ro))
			r.kill("v", unix.SIGKILL)
			r.waitDead("t")
			look(r)
			r.wantData("data", "staging-v", "t", "ro")
			if len(r.servers()) != 1 || len(r.mounts()) != 3 {
				t.Errorf("servers %v, mounts %v", r.servers(), r.mounts())
			}
			m, err := mnt.At(r.path("ro"))
			must(t, err)
			if o := strings.Join(m[0].Options, ","); !strings.Contains(o, "ro") || !strings.Contains(o, "noexec") {
				t.Errorf("options %s", o)
			}
			must(t, r.Publish(t.Context(), ro))
			r.unpublish("v", "t")
			r.unpublish("v", "ro")
			r.unstage("v")
		})
	}
}

// TestRealFUSEWatch: nobody asks, and it is healed.
func TestRealFUSEWatch(t *testing.T) {
	r := newFUSERig(t)
	r.volume("v", "data")
	r.stage("v", "")
	r.publish("v", "t")
	for range 2 {
		pid := r.pid("v")
		r.kill("v", unix.SIGKILL)
		r.until("healed", func() bool {
			st, err := r.host.Find(t.Context(), "v")
			b, read := os.ReadFile(r.path("t/data"))
			return err == nil && st.PID != pid && read == nil && string(b) == "data"
		})
	}
	r.unpublish("v", "t")
	r.unstage("v")
}

// TestRealFUSEHungServer: a server that is stopped keeps nobody waiting, loses no data
// by it, and can be taken away.
func TestRealFUSEHungServer(t *testing.T) {
	r := newFUSERig(t)
	r.opts.StatsTimeout, r.opts.ServerAnswer = 300*time.Millisecond, 300*time.Millisecond
	r.restart()
	r.volume("v", "data")
	r.until("staged", func() bool { return r.Stage(t.Context(), r.stageReq("v", "")) == nil })
	r.until("published", func() bool { return r.Publish(t.Context(), r.publishReq("v", "t")) == nil })
	pid := r.pid("v")
	stopped := func() bool {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return strings.Contains(string(b), ") T ")
	}
	r.kill("v", unix.SIGSTOP)
	r.until("stopped", stopped)
	begun := time.Now()
	_, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
	wantKind(t, err, backends.ErrUnavailable)
	wantKind(t, r.Stage(t.Context(), r.stageReq("v", "")), backends.ErrUnavailable)
	wantKind(t, r.Publish(t.Context(), r.publishReq("v", "t2")), backends.ErrUnavailable)
	must(t, unix.Kill(pid, unix.SIGCONT))
	r.until("well", func() bool { return r.Stage(t.Context(), r.stageReq("v", "")) == nil })
	r.wantData("data", "t")
	r.until("asked", func() bool { // by nobody any more
		_, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
		return err == nil
	})
	if r.pid("v") != pid {
		t.Error("a server that hung for a moment was replaced")
	}
	r.kill("v", unix.SIGSTOP)
	r.until("stopped", stopped)
	var st *mounter.Stats
	for range 2 { // the first may still get what the server said before
		st, err = r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
	}
	if err == nil && st.Age == 0 { // and its look at the target still waits
		t.Errorf("figures of a server that is stopped: %+v", st)
	}
	cat := exec.CommandContext(t.Context(), "cat", r.path("t/data")) // as a pod that hangs
	must(t, cat.Start())
	seen := 0
	r.until("waiting", func() bool {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(cat.Process.Pid) + "/stat")
		if seen++; !strings.Contains(string(b), "(cat) S") && !strings.Contains(string(b), "(cat) D") {
			seen = 0
		}
		return seen > 5
	})
	r.restart()
	r.unpublish("v", "t")
	r.unstage("v")
	if cat.Wait() == nil {
		t.Error("who waited for the server got its data")
	}
	if took := time.Since(begun); took > 5*time.Minute { // a minute is what each of the waits may take
		t.Errorf("all of that took %v", took)
	}
}

// TestRealFUSEStartFails: the error says what the server said, and nothing is left.
func TestRealFUSEStartFails(t *testing.T) {
	for mode, want := range map[string]struct{ say string }{
		"fail":   {say: "bucket does not exist"},
		"init":   {say: "bucket does not exist"},
		"silent": {say: "has not answered"},
		"daemon": {say: "foreground"},
	} {
		t.Run(mode, func(t *testing.T) {
			r := newFUSERig(t)
			r.volume("v", "data")
			patience := r.opts.ServerStart
			if mode == "silent" {
				r.opts.ServerStart = time.Second
			}
			r.node.modes["v"] = mode
			r.quiet = true
			r.restart()
			err := r.Stage(t.Context(), r.stageReq("v", ""))
			if mode == "daemon" && err == nil { // it answered before its parent's end was seen
				r.waitDead("staging-v")
				r.unstage("v")
				err = fmt.Errorf("%w: dead, for it was not in the foreground", backends.ErrUnavailable)
			}
			wantKind(t, err, backends.ErrUnavailable)
			if mode == "daemon" && strings.Contains(err.Error(), "nobody serves") {
				return // its end was seen first
			}
			if !strings.Contains(err.Error(), want.say) || strings.Contains(err.Error(), "canary") {
				t.Errorf("%v", err)
			}
			r.until("gone", func() bool { return len(r.servers()) == 0 })
			if len(r.mounts()) > 0 {
				t.Errorf("mounts %v", r.mounts())
			}
			r.node.modes["v"] = ""
			r.opts.ServerStart = patience
			r.restart()
			r.stage("v", "")
			r.wantData("data", "staging-v")
			r.unstage("v")
		})
	}
}

// TestRealFUSERefused: what cannot be run is refused for good, and nothing is left.
func TestRealFUSERefused(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*backends.FUSE)
		kind error
	}{
		"no program":      {func(f *backends.FUSE) { f.Path = "/nonexistent" }, backends.ErrPrecondition},
		"relative":        {func(f *backends.FUSE) { f.Path = "server" }, backends.ErrPrecondition},
		"no subtype":      {func(f *backends.FUSE) { f.Subtype = "" }, backends.ErrPrecondition},
		"subtype":         {func(f *backends.FUSE) { f.Subtype = "a,allow_other" }, backends.ErrPrecondition},
		"no source":       {func(f *backends.FUSE) { f.Source = "" }, backends.ErrPrecondition},
		"foreign option":  {func(f *backends.FUSE) { f.Options = append(f.Options, "fd=0") }, backends.ErrInvalid},
		"bind":            {func(f *backends.FUSE) { f.Options = append(f.Options, "bind") }, backends.ErrInvalid},
		"file not used":   {func(f *backends.FUSE) { f.Args = f.Args[:4] }, backends.ErrInvalid},
		"file not given":  {func(f *backends.FUSE) { f.Files = nil }, backends.ErrInvalid},
		"mount, not only": {func(*backends.FUSE) {}, backends.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFUSERig(t)
			r.volume("v", "data")
			r.node.edit = tc.edit
			req := r.stageReq("v", "")
			if name == "mount, not only" {
				req.Capability.Flags = backends.NewFlags("uid=1000")
			}
			wantKind(t, r.Stage(t.Context(), req), tc.kind)
			if len(r.mounts()) > 0 || len(r.Volumes()) > 0 || len(r.servers()) > 0 || len(r.node.opens) > 0 {
				t.Errorf("mounts %v, records %v, servers %v, open %v", r.mounts(), r.Volumes(), r.servers(), r.node.opens)
			}
		})
	}
}

// TestRealFUSEHostDies: with the host all servers die; a new one gets them from the
// driver, which still knows them, or from the CO.
func TestRealFUSEHostDies(t *testing.T) {
	r := newFUSERig(t)
	r.volume("v", "data")
	r.stage("v", "")
	r.publish("v", "t")
	for _, restart := range []bool{false, true} {
		r.host.End(syscall.SIGKILL)
		r.waitDead("t")
		must(t, os.Remove(r.path("host.sock")))
		if restart {
			must(t, r.Close())
			r.Engine = nil
		}
		r.startHost()
		if restart {
			r.restart()
			err := r.Publish(t.Context(), r.publishReq("v", "t"))
			wantKind(t, err, backends.ErrUnavailable)
			if !strings.Contains(err.Error(), "stage it again") {
				t.Error(err)
			}
			r.stage("v", "")
		} else {
			r.until("healed", func() bool { return r.Publish(t.Context(), r.publishReq("v", "t")) == nil })
		}
		r.wantData("data", "staging-v", "t")
	}
	r.host.End(syscall.SIGKILL)
	r.unpublish("v", "t")
	r.unstage("v") // nobody listens, so that nothing runs
}

// TestRealFUSEDriverKilled: the server is no child of the driver, and not of its PID
// namespace either; the next driver finds it.
func TestRealFUSEDriverKilled(t *testing.T) {
	r := newFUSERig(t)
	r.volume("v", "data")
	must(t, r.Close())
	r.Engine = nil
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envFUSEDriver+"="+r.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, _ := bufio.NewReader(out).ReadString('\n')
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if line != "published\n" {
		t.Fatalf("the driver said %q", line)
	}
	pid := r.pid("v")
	r.wantData("data", "staging-v", "t")
	r.restart()
	r.stage("v", "")
	r.publish("v", "t")
	if r.pid("v") != pid || len(r.servers()) != 1 {
		t.Errorf("another server: %v", r.servers())
	}
	r.wantData("data", "t")
	// One that was killed with the driver away is healed from the host's memory.
	must(t, r.Close())
	r.Engine = nil
	r.kill("v", unix.SIGKILL)
	r.waitDead("t")
	r.restart()
	r.publish("v", "t")
	r.wantData("data", "t")
	r.unpublish("v", "t")
	r.unstage("v")
}

func runFUSEDriver(dir string) error {
	var t testing.TB = &testing.T{}
	ctx := context.Background()
	r := &realRig{t: t, dir: dir}
	e, err := mounter.New(newFUSENode(t, dir), &mounter.Options{
		StateDir: r.path("state"), AllowVolatileState: true, Servers: fusehost.NewClient(r.path("host.sock")),
	})
	if err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return err
	}
	if err := e.Stage(ctx, r.stageReq("v", "")); err != nil {
		return err
	}
	if err := e.Publish(ctx, r.publishReq("v", "t")); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString("published\n"); err != nil {
		return err
	}
	select {}
}
