package nfs

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// crash is one row of the matrix: an operation that is killed at each of its steps.
type crash struct {
	name    string
	order   order
	prepare func(f *fixture) order // what is there before; gives IDs
	// killed looks at what is there before the next process does anything.
	killed func(f *fixture)
	// after is what the next process does, and what holds then.
	after func(f *fixture, o order)
	keep  []string // what of the driver's directory may be left at the end
	least int      // steps
}

// TestCrash kills a process at every step of every operation. The next process
// recovers, the call is repeated, and everything is deleted: nothing may be left.
func TestCrash(t *testing.T) {
	for _, c := range crashes() {
		t.Run(c.name, func(t *testing.T) {
			steps := c.once(t, "")
			if len(steps) < c.least {
				t.Fatalf("only the steps %q", steps)
			}
			for _, step := range steps {
				t.Run(step, func(t *testing.T) { c.once(t, step) })
			}
		})
	}
}

func (c *crash) once(t *testing.T, step string) (steps []string) {
	t.Helper()
	o := testOptions(t)
	o.Quota = QuotaGuard
	o.Shares[0].Server, o.Shares[0].Export, o.Legacy = "nfs.example.com", "/srv/nfs", LegacyDelete
	f := &fixture{t, open(t, o), o.Shares[0].LocalDir}
	f.must(f.b.RecoverController(t.Context()))
	order := c.order
	if c.prepare != nil {
		order = c.prepare(f)
	}
	f.must(f.b.Close())
	order.Share, order.State, order.KillAt = f.dir, o.StateDir, step
	steps = order.run(t)
	if c.killed != nil && step != "" {
		c.killed(f)
	}
	f.b = open(t, o)
	f.must(f.b.RecoverController(t.Context()))
	c.after(f, order)
	f.litter(c.keep...)
	return steps
}

// gone fails the test unless a delete is done, or was.
func (f *fixture) gone(id string) {
	f.Helper()
	if err := f.delete(id); err != nil && !errors.Is(err, backends.ErrNotFound) {
		f.Error(err)
	}
	if _, err := f.b.Volume(f.Context(), backends.VolumeRequest{ID: id}); !errors.Is(err, backends.ErrNotFound) {
		f.Errorf("deleted: %v", err)
	}
}

// found finds a volume, or makes it, as csidriver does.
func (f *fixture) found(name string, params ...string) *backends.Volume {
	f.Helper()
	req := request(name, params...)
	v, err := f.b.FindVolume(f.Context(), req)
	if errors.Is(err, backends.ErrNotFound) {
		v, err = f.b.CreateVolume(f.Context(), req)
	}
	f.must(err)
	return v
}

func (f *fixture) noRoot(but ...string) {
	f.Helper()
	left := slices.DeleteFunc(f.root(), func(n string) bool { return slices.Contains(but, n) })
	if len(left) > 0 {
		f.Errorf("%q is left on the share", left)
	}
}

// volumeWith makes a volume with files, and gives an order about it.
func volumeWith(op, name string, params ...string) func(f *fixture) order {
	return func(f *fixture) order {
		v := f.create("pv", params...)
		s, sub, err := f.b.locate(v.ID, v.Context)
		f.must(err)
		_ = s
		for _, p := range []string{"data", "dir/more", "dir/deep/most"} {
			f.write(sub+"/"+p, "content of "+p)
		}
		f.must(os.Link(f.at(sub, "data"), f.at(sub, "dir/second")))
		return order{Op: op, Name: name, ID: v.ID}
	}
}

func whole(f *fixture, sub string) {
	f.Helper()
	for _, p := range []string{"data", "dir/more", "dir/deep/most"} {
		f.holds(sub+"/"+p, "content of "+p)
	}
	f.holds(sub+"/dir/second", "content of data")
}

func snapshotOf(op string) func(f *fixture) order {
	return func(f *fixture) order {
		o := volumeWith(op, "copy")(f)
		s := f.ready(f.snapshot("s", o.ID).ID)
		f.must(f.delete(o.ID))
		o.ID = s.ID
		return o
	}
}

func crashes() []crash {
	nested := []string{paramSubDir, "ns/${pvc.metadata.name}"}
	return []crash{
		{
			name: "create", order: order{Op: "create", Name: "pv", Params: nested}, least: 8,
			after: func(f *fixture, o order) {
				f.gone(f.found("pv", nested...).ID)
				f.noRoot("ns") // killed between mkdir and its record, a parent may stay
			},
			keep: []string{dirParents},
		},
		{
			name: "create, then delete", order: order{Op: "create", Name: "pv", Params: nested}, least: 8,
			after: func(f *fixture, o order) {
				f.gone(handle{tag: volumeTag, share: f.b.o.Shares[0], key: keyOf("pv")}.String())
				f.noRoot("ns")
			},
			keep: []string{dirParents},
		},
		{
			name: "create, then as another", order: order{Op: "create", Name: "pv", Params: []string{paramSubDir, "first"}}, least: 7,
			after: func(f *fixture, _ order) {
				v := f.found("pv", paramSubDir, "other")
				if at := v.Context[ctxSubDir]; at != "other" && at != "first" {
					f.Errorf("it is at %q", at)
				}
				f.gone(v.ID)
				f.noRoot()
			},
		},
		{
			name: "delete", prepare: volumeWith("delete", "", nested...), least: 6,
			after: func(f *fixture, o order) { f.gone(o.ID); f.noRoot() },
		},
		{
			name: "delete, then create", prepare: volumeWith("delete", "", nested...), least: 6,
			after: func(f *fixture, o order) {
				v := f.found("pv", nested...)
				f.gone(v.ID)
				f.noRoot()
			},
		},
		{
			name: "archive", prepare: volumeWith("delete", "", append([]string{paramOnDelete, "archive"}, nested...)...), least: 5,
			after: func(f *fixture, o order) {
				f.gone(o.ID)
				names := f.root()
				if len(names) != 1 || !strings.HasPrefix(names[0], "archived-ns-claim-") {
					f.Fatalf("%q", names)
				}
				whole(f, names[0])
			},
			keep: []string{dirKept},
		},
		{
			name: "retain", prepare: volumeWith("delete", "", paramOnDelete, "retain"), least: 3,
			after: func(f *fixture, o order) { f.gone(o.ID); whole(f, "pv") }, keep: []string{dirKept},
		},
		{
			name: "delete of csi-driver-nfs's", least: 5,
			prepare: func(f *fixture) order {
				f.write("theirs/data", "x")
				return order{Op: "delete", ID: "nfs.example.com#srv/nfs#theirs##"}
			},
			after: func(f *fixture, o order) { f.gone(o.ID); f.noRoot() },
		},
		{
			name: "snapshot", prepare: volumeWith("snapshot", "s"), least: 8,
			after: func(f *fixture, o order) {
				req := backends.CreateSnapshotRequest{Name: "s", VolumeID: o.ID}
				s, err := f.b.FindSnapshot(f.Context(), req)
				if errors.Is(err, backends.ErrNotFound) {
					s, err = f.b.CreateSnapshot(f.Context(), req)
				}
				f.must(err)
				s = f.ready(s.ID)
				f.gone(o.ID)
				v := f.restore(s, "copy")
				whole(f, "copy")
				f.must(f.b.DeleteSnapshot(f.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
				f.gone(v.ID)
				f.noRoot()
			},
		},
		{
			name: "snapshot, then delete both", prepare: volumeWith("snapshot", "s"), least: 8,
			after: func(f *fixture, o order) {
				id := handle{tag: snapshotTag, share: f.b.o.Shares[0], key: keyOf("s")}.String()
				err := f.b.DeleteSnapshot(f.Context(), backends.DeleteSnapshotRequest{ID: id})
				if err != nil && !errors.Is(err, backends.ErrNotFound) {
					f.Error(err)
				}
				f.gone(o.ID)
				f.noRoot()
			},
		},
		{
			name: "restore", prepare: snapshotOf("restore"), least: 8,
			killed: func(f *fixture) {
				if _, err := os.Stat(f.at("copy")); err == nil {
					whole(f, "copy") // there, and not whole, is what must not be
				}
			},
			after: func(f *fixture, o order) {
				v, err := f.b.FindVolume(f.Context(), request("copy"))
				if errors.Is(err, backends.ErrNotFound) {
					v, err = f.b.RestoreSnapshot(f.Context(), backends.Snapshot{ID: o.ID}, request("copy"))
				}
				f.must(err)
				whole(f, "copy")
				f.gone(v.ID)
				f.must(f.b.DeleteSnapshot(f.Context(), backends.DeleteSnapshotRequest{ID: o.ID}))
				f.noRoot()
			},
		},
		{
			name: "clone, then delete", prepare: volumeWith("clone", "copy"), least: 8,
			killed: func(f *fixture) {
				if _, err := os.Stat(f.at("copy")); err == nil {
					whole(f, "copy")
				}
			},
			after: func(f *fixture, o order) {
				f.gone(handle{tag: volumeTag, share: f.b.o.Shares[0], key: keyOf("copy")}.String())
				whole(f, "pv")
				f.gone(o.ID)
				f.noRoot()
			},
		},
		{
			name: "delete of a snapshot", prepare: snapshotOf("deletesnapshot"), least: 4,
			after: func(f *fixture, o order) {
				err := f.b.DeleteSnapshot(f.Context(), backends.DeleteSnapshotRequest{ID: o.ID})
				if err != nil && !errors.Is(err, backends.ErrNotFound) {
					f.Error(err)
				}
				f.noRoot()
			},
		},
		{
			name: "delete of a snapshot, then create", least: 4,
			prepare: func(f *fixture) order {
				o := volumeWith("deletesnapshot", "")(f)
				o.ID = f.ready(f.snapshot("s", o.ID).ID).ID
				return o
			},
			after: func(f *fixture, o order) {
				id := handle{tag: volumeTag, share: f.b.o.Shares[0], key: keyOf("pv")}.String()
				req := backends.CreateSnapshotRequest{Name: "s", VolumeID: id}
				s, err := f.b.FindSnapshot(f.Context(), req)
				if errors.Is(err, backends.ErrNotFound) {
					s, err = f.b.CreateSnapshot(f.Context(), req)
				}
				f.must(err)
				f.gone(f.restore(f.ready(s.ID), "copy").ID)
				f.must(f.b.DeleteSnapshot(f.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
				f.gone(id)
				f.noRoot()
			},
		},
		{
			name: "expand", prepare: volumeWith("expand", ""), least: 1,
			after: func(f *fixture, o order) {
				size, err := f.b.ExpandVolume(f.Context(), backends.ExpandVolumeRequest{ID: o.ID, Size: 2 << 20})
				if err != nil || size != 2<<20 {
					f.Errorf("%d, %v", size, err)
				}
				f.gone(o.ID)
			},
		},
	}
}
