package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/internal/testenv"
)

// killer runs lvm, and kills it (SIGKILL, by strace) at the n-th time that one of the
// commands that change something makes a system call. What comes after that fails too
// when the driver is to die with it.
type killer struct {
	run    runner
	dir    string
	call   string
	change int // which of the commands; 0: none
	n      int
	driver bool

	mu    sync.Mutex
	count int
	calls []int // of each command
	dead  bool
	died  string
}

var errDead = errors.New("the driver is dead")

func (k *killer) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	k.mu.Lock()
	if k.dead {
		k.mu.Unlock()
		return command.Result{Code: -1}, errDead
	}
	changes := c.Path == "lvm" && slices.Contains([]string{"lvcreate", "lvchange", "lvextend", "lvremove", "lvconvert"}, c.Args[0])
	if changes {
		k.count++
	}
	now := k.count
	k.mu.Unlock()
	if !changes || k.change != 0 && now != k.change {
		return k.run.Run(ctx, c)
	}
	log := filepath.Join(k.dir, "trace")
	args := []string{"-qq", "-o", log, "-e", "trace=" + k.call, "-e", "signal=none"}
	if k.n > 0 {
		args = append(args, "-e", "inject="+k.call+":signal=SIGKILL:when="+strconv.Itoa(k.n))
	}
	what := "lvm " + strings.Join(slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return strings.Contains(a, "activation/") || a == "--config" }), " ")
	c.Path, c.Args = "strace", append(append(args, "lvm"), c.Args...)
	res, err := k.run.Run(ctx, c)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n == 0 {
		b, _ := os.ReadFile(log)
		k.calls = append(k.calls, bytes.Count(b, []byte("\n")))
	}
	var exit *command.ExitError
	if errors.As(err, &exit) && exit.Signal != "" {
		k.died, k.dead = what, k.driver
	}
	return res, err
}

// service is an operation, what is there before and afterwards, and how it is undone.
type service struct {
	name  string
	class string
	setup func(t *testing.T, b *Backend, class string)
	do    func(b *Backend, class string) error
	want  func(t *testing.T, b *Backend, class string)
	undo  func(b *Backend, class string) error
	left  []string // what is there when it is undone
}

const killedSize = 8 << 20

func volID(class, name string) string  { return makeID(class, nameOf(kindVolume, name)) }
func snapID(class, name string) string { return makeID(class, nameOf(kindSnapshot, name)) }

func killedPattern() []byte {
	p := make([]byte, killedSize)
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(p); i += 3 << 20 {
		for j := i; j < min(len(p), i+1<<20); j++ {
			p[j] = byte(random.Uint32())
		}
	}
	return p
}

func withVolumes(names ...string) func(t *testing.T, b *Backend, class string) {
	return func(t *testing.T, b *Backend, class string) {
		for _, n := range names {
			v := createVolume(t, b, n, class, killedSize)
			src := opened(t, b, v.ID, true)
			write(t, src.Device.Path, killedPattern(), 0)
			closed(t, b, v.ID, src)
		}
	}
}

func wantPattern(name string) func(t *testing.T, b *Backend, class string) {
	return func(t *testing.T, b *Backend, class string) {
		t.Helper()
		src := opened(t, b, volID(class, name), true)
		defer closed(t, b, volID(class, name), src)
		if got := read(t, src.Device.Path, killedSize, 0); !bytes.Equal(got, killedPattern()) {
			t.Error("other bytes")
		}
	}
}

func deleteVol(name string) func(b *Backend, class string) error {
	return func(b *Backend, class string) error {
		return gone(b.DeleteVolume(ctxOf(), backends.DeleteVolumeRequest{ID: volID(class, name)}))
	}
}

func deleteSnap(b *Backend, class string) error {
	return gone(b.DeleteSnapshot(ctxOf(), backends.DeleteSnapshotRequest{ID: snapID(class, "s")}))
}

// once does what a CO does: it looks whether the thing is there before it asks for it.
func once(find, make func() error) error {
	if err := find(); !errors.Is(err, backends.ErrNotFound) {
		return err
	}
	return make()
}

func cutSnap(b *Backend, class string) error {
	req := backends.CreateSnapshotRequest{Name: "s", VolumeID: volID(class, "a")}
	return once(func() error { return second(b.FindSnapshot(ctxOf(), req)) }, func() error { return second(b.CreateSnapshot(ctxOf(), req)) })
}

func makeVol(name string, make func(b *Backend, req backends.CreateVolumeRequest) error) func(b *Backend, class string) error {
	return func(b *Backend, class string) error {
		req := request(class, name, killedSize)
		return once(func() error { return second(b.FindVolume(ctxOf(), req)) }, func() error { return make(b, req) })
	}
}

var services = []service{
	{
		name: "create", class: "linear",
		do: makeVol("new", func(b *Backend, req backends.CreateVolumeRequest) error { return second(b.CreateVolume(ctxOf(), req)) }),
		want: func(t *testing.T, b *Backend, class string) {
			closed(t, b, volID(class, "new"), opened(t, b, volID(class, "new"), false))
		},
		undo: deleteVol("new"),
	},
	{
		name: "delete", class: "linear", setup: withVolumes("a"), do: deleteVol("a"), undo: deleteVol("a"),
		want: func(t *testing.T, _ *Backend, _ string) { wantOnly(t) },
	},
	{
		name: "expand", class: "linear", setup: withVolumes("a"), undo: deleteVol("a"), want: wantPattern("a"),
		do: func(b *Backend, class string) error {
			return second(b.ExpandVolume(ctxOf(), backends.ExpandVolumeRequest{ID: volID(class, "a"), Size: 2 * killedSize}))
		},
	},
	{name: "snapshot", class: "linear", setup: withVolumes("a"), do: cutSnap, want: wantRestored, undo: deleteSnap, left: []string{nameOf(kindVolume, "a")}},
	{
		name: "delete snapshot", class: "linear", undo: deleteSnap, do: deleteSnap, left: []string{nameOf(kindVolume, "a")},
		setup: func(t *testing.T, b *Backend, class string) {
			withVolumes("a")(t, b, class)
			if err := cutSnap(b, class); err != nil {
				t.Fatal(err)
			}
		},
		want: wantPattern("a"),
	},
	{
		name: "restore", class: "linear", undo: deleteVol("new"), want: wantPattern("new"),
		left: []string{nameOf(kindVolume, "a"), nameOf(kindSnapshot, "s")},
		setup: func(t *testing.T, b *Backend, class string) {
			withVolumes("a")(t, b, class)
			if err := cutSnap(b, class); err != nil {
				t.Fatal(err)
			}
		},
		do: makeVol("new", func(b *Backend, req backends.CreateVolumeRequest) error {
			return second(b.RestoreSnapshot(ctxOf(), backends.Snapshot{ID: snapID(req.Parameters[paramClass], "s")}, req))
		}),
	},
	{
		name: "clone", class: "linear", setup: withVolumes("a"), undo: deleteVol("new"), want: wantPattern("new"), left: []string{nameOf(kindVolume, "a")},
		do: makeVol("new", func(b *Backend, req backends.CreateVolumeRequest) error {
			return second(b.CloneVolume(ctxOf(), backends.Volume{ID: volID(req.Parameters[paramClass], "a")}, req))
		}),
	},
	{
		name: "group", class: "linear", setup: withVolumes("a", "b"), left: []string{nameOf(kindVolume, "a"), nameOf(kindVolume, "b")},
		do: func(b *Backend, class string) error {
			req := backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: []string{volID(class, "a"), volID(class, "b")}}
			return once(func() error { return second(b.FindGroupSnapshot(ctxOf(), req)) }, func() error { return second(b.CreateGroupSnapshot(ctxOf(), req)) })
		},
		want: func(t *testing.T, b *Backend, _ string) {
			if g, err := b.GroupSnapshot(t.Context(), backends.GroupSnapshotRequest{ID: groupID("g")}); err != nil || len(g.Snapshots) != 2 {
				t.Errorf("%+v, %v", g, err)
			}
		},
		undo: func(b *Backend, _ string) error {
			return gone(b.DeleteGroupSnapshot(ctxOf(), backends.DeleteGroupSnapshotRequest{ID: groupID("g")}))
		},
	},
}

// wantRestored looks at the snapshot by a volume that is made of it.
func wantRestored(t *testing.T, b *Backend, class string) {
	t.Helper()
	s, err := b.Snapshot(t.Context(), backends.SnapshotRequest{ID: snapID(class, "s")})
	if err != nil {
		t.Fatal(err)
	}
	restored(t, b, s, "copy", class, killedSize)
	wantPattern("copy")(t, b, class)
	deleted(t, b, volID(class, "copy"))
}

// all of them are also done to thin volumes.
func allServices() []service {
	all := slices.Clone(services)
	for _, s := range services {
		s.class = "thin"
		all = append(all, s)
	}
	return all
}

// kill plays one death, and what comes then: the same driver, or the next one, is
// called again until the thing is done; in a second run, it is taken back instead.
func (s *service) kill(t *testing.T, k *killer, undo bool) (died bool) {
	t.Helper()
	b := both(t, testOptions())
	if s.setup != nil {
		s.setup(t, b, s.class)
	}
	k.run, k.dir = b.tool.run, t.TempDir()
	b.tool.run = k
	err := s.do(b, s.class)
	for _, final := range []error{backends.ErrInvalid, backends.ErrNotFound, backends.ErrNoSpace, backends.ErrFailed, backends.ErrPrecondition} {
		if errors.Is(err, final) {
			t.Errorf("a final error: %v", err)
		}
	}
	b.tool.run = k.run
	if k.driver && k.died != "" {
		_ = b.Close()
		b = both(t, testOptions())
	}
	then := s.do
	if undo {
		then = s.undo
	}
	for try := 0; ; try++ {
		if err = then(b, s.class); err == nil {
			break
		}
		if try == 5 {
			t.Fatalf("still after %d tries: %v", try, err)
		}
	}
	if stuck, err := b.kernel.suspended("LVM-"); len(stuck) > 0 || err != nil {
		t.Errorf("suspended: %q, %v", stuck, err)
	}
	if !undo {
		s.want(t, b, s.class)
		if err := s.undo(b, s.class); err != nil {
			t.Fatalf("undo: %v", err)
		}
	}
	b.jobs.Wait()
	wantOnly(t, s.left...)
	if len(s.left) > 0 {
		wantPattern("a")(t, b, s.class)
	}
	return k.died != ""
}

// TestLVMKilledForReal kills lvm at its system calls, alone or with its driver.
// CSIKIT_CRASH=all plays every one of them; else of most services one.
func TestLVMKilledForReal(t *testing.T) {
	if !testenv.InVM(t, "200M", "200M") {
		return
	}
	testenv.Tool(t, "strace")
	makeVG(t, "/dev/ubdb", "/dev/ubdc")
	random := rand.New(rand.NewPCG(1, 0)) // the same sample each time
	deaths, cases := 0, 0
	all := os.Getenv("CSIKIT_CRASH") == "all"
	for i, s := range allServices() {
		for j, call := range []string{"ioctl", "io_submit"} {
			if !all && (i%2 != j || i%3 == 1) {
				continue
			}
			t.Run(s.class+" "+s.name+" "+call, func(t *testing.T) {
				fresh := func() {
					emptyVG(t)
					makePool(t)
				}
				fresh()
				plain := &killer{call: call}
				b := both(t, testOptions())
				if s.setup != nil {
					s.setup(t, b, s.class)
				}
				plain.run, plain.dir = b.tool.run, t.TempDir()
				b.tool.run = plain
				if err := s.do(b, s.class); err != nil {
					t.Fatal(err)
				}
				only := random.IntN(len(plain.calls))
				for change, n := range plain.calls {
					for at := 1; at <= n; at++ {
						if !all && (change != only || at != 1+n*2/3) {
							continue
						}
						mode := random.IntN(4)
						k := &killer{call: call, change: change + 1, n: at, driver: mode&1 == 0}
						t.Run(fmt.Sprintf("command %d of %d at %d of %d, driver %v, undo %v", change+1, len(plain.calls), at, n, k.driver, mode&2 == 0), func(t *testing.T) {
							fresh()
							cases++
							if s.kill(t, k, mode&2 == 0) {
								deaths++
							}
						})
					}
				}
			})
		}
	}
	t.Logf("%d cases, lvm died in %d", cases, deaths)
}
