package e2e

import (
	"context"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/internal/testenv"
)

// previous is the release whose records the present one must read, with the
// volumes in use, and which must read the present one's: nodes are upgraded one
// by one, and some upgrades are taken back.
const previous = "1e6eee19f88dfd2021a50068115720d1a1aee0ec"

// TestUpgrade goes from the previous release to this one and back while volumes
// of every kind are in use, once with the driver ended in order and once with
// kill -9.
func TestUpgrade(t *testing.T) {
	testenv.Root(t)
	source := testenv.Source(t, previous)
	old := filepath.Join(t.TempDir(), "loopfile")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "grpcnotrace", "-o", old, "./examples/loopfile")
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the previous release: %v\n%s", err, out)
	}
	for name, end := range map[string]func(*driver) error{
		"stopped": func(d *driver) error { return d.Stop() },
		"killed":  func(d *driver) error { return d.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t)
			u := &upgrade{driver: d, t: t, end: end, now: d.Argv[0], before: old}
			u.run()
		})
	}
}

type upgrade struct {
	*driver
	t           *testing.T
	end         func(*driver) error
	before, now string // binaries
}

// use is one volume in use, with what it must read back.
type use struct {
	*volume
	sum [sha256.Size]byte
}

// to goes on with another binary.
func (u *upgrade) to(bin string) {
	u.t.Helper()
	if err := u.end(u.driver); err != nil {
		u.t.Fatal(err)
	}
	u.Argv[0] = bin
	u.start()
}

// begin makes volumes and takes them into use.
func (u *upgrade) begin(names ...string) []use {
	u.t.Helper()
	var all []use
	for _, name := range names {
		for _, fsType := range []string{"ext4", "xfs", "btrfs", "block"} {
			v := u.newVolume(name+"-"+fsType, fsType)
			must(u.t, v.create, "create "+v.name)
			must(u.t, v.stage, "stage "+v.name)
			must(u.t, v.publish, "publish "+v.name)
			all = append(all, use{v, u.fill(v)})
		}
	}
	return all
}

func (u *upgrade) fill(v *volume) [sha256.Size]byte {
	u.t.Helper()
	if v.cap.GetBlock() == nil {
		return v.write(u.t)
	}
	data := []byte("what a raw block volume of " + v.name + " holds")
	f, err := os.OpenFile(v.target, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // written through
	if _, err := f.WriteAt(data, 1<<20); err != nil {
		u.t.Fatal(err)
	}
	return sha256.Sum256(data)
}

func (u *upgrade) holds(v use) {
	u.t.Helper()
	if v.cap.GetBlock() == nil {
		v.reads(u.t, v.sum)
		return
	}
	data := make([]byte, len("what a raw block volume of "+v.name+" holds"))
	f, err := os.Open(v.target)
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	if _, err := f.ReadAt(data, 1<<20); err != nil {
		u.t.Fatal(err)
	}
	if sha256.Sum256(data) != v.sum {
		u.t.Fatalf("%s reads other data than was written", v.name)
	}
}

// known checks that the running release knows a volume that another one took
// into use: each call of its life so far is repeated without a second mount.
func (u *upgrade) known(all []use) {
	u.t.Helper()
	for _, v := range all {
		u.holds(v)
		for _, step := range []struct {
			what string
			do   func(context.Context) error
		}{{"create", v.create}, {"stage", v.stage}, {"publish", v.publish}, {"stats", v.stats}} {
			must(u.t, step.do, step.what+" "+v.name+", in use since another release")
		}
		mounted(u.t, v.target, 1)
		u.holds(v)
	}
}

func (v *volume) stats(ctx context.Context) error {
	_, err := v.d.node().NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.id, VolumePath: v.target})
	return err
}

// leave ends the use of volumes; restage takes them into use once more before.
func (u *upgrade) leave(all []use, restage bool) {
	u.t.Helper()
	for _, v := range all {
		must(u.t, v.unpublish, "unpublish "+v.name)
		mounted(u.t, v.target, 0)
		must(u.t, v.unstage, "unstage "+v.name)
		mounted(u.t, v.staging, 0)
		if !restage {
			must(u.t, v.delete, "delete "+v.name)
			continue
		}
		must(u.t, v.stage, "stage again "+v.name)
		must(u.t, v.publish, "publish again "+v.name)
		u.holds(v)
	}
}

func (u *upgrade) run() {
	u.t.Helper()
	u.to(u.before)
	first, second := u.begin("first"), u.begin("second")

	u.to(u.now)
	u.known(first)
	u.known(second)
	for _, v := range first {
		must(u.t, v.expand, "expand "+v.name)
	}
	u.leave(second, true)
	third := u.begin("third")

	u.to(u.before)
	for _, all := range [][]use{first, second, third} {
		u.known(all)
	}
	u.leave(first, false)
	u.leave(third, true)

	u.to(u.now)
	u.known(second)
	u.known(third)
	u.leave(second, false)
	u.leave(third, false)
	if n := u.volumeCount(); n != 0 {
		u.t.Errorf("%d volumes left", n)
	}
}
