package lvm

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What follows runs in the VM, with a real lvm and a real device-mapper.

// lvm runs the tool as an administrator does.
func lvm(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "lvm", args...)
	cmd.Env = append(os.Environ(), "LVM_SUPPRESS_FD_WARNINGS=1")
	var warned bytes.Buffer // also when all is well: of disks that differ after a kill
	cmd.Stderr = &warned
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("lvm %s: %v\n%s%s", strings.Join(args, " "), err, out, warned.Bytes())
	}
	return string(out)
}

// makeVG makes the volume group of the disks of the VM.
func makeVG(t testing.TB, disks ...string) {
	t.Helper()
	lvm(t, append([]string{"vgcreate", "-qq", "-y", testVG}, disks...)...)
	t.Cleanup(func() {
		cmd := exec.Command("lvm", "vgremove", "-qq", "-ff", "-y", testVG)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("vgremove: %v\n%s", err, out)
		}
	})
}

// emptyVG takes all LVs away: volumes as the driver does, for what it leaves reads as
// zeros; the rest as an administrator does.
func emptyVG(t testing.TB) {
	t.Helper()
	o := allProfiles()
	o.Classes = slices.DeleteFunc(o.Classes, func(c Class) bool { return c.Profile == Thin })
	b := open(t, o)
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.jobs.Wait()
	for _, kind := range []string{kindSnapshot, kindVolume} {
		left, err := b.all(t.Context(), kind, b.peek)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range left {
			if !b.has(v) {
				continue
			}
			if err := b.delete(t.Context(), v.id(), kind); err != nil {
				t.Fatal(err)
			}
		}
	}
	lvm(t, "lvremove", "-qq", "-ff", "-y", testVG)
}

func makePool(t testing.TB) {
	t.Helper()
	lvm(t, "lvcreate", "-qq", "-y", "--type", "thin-pool", "-L", "64M", "-n", testPool, testVG)
}

func open(t testing.TB, o Options) *Backend {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// vmRow is a case of a test in the VM.
type vmRow struct {
	name string
	run  func(t *testing.T)
}

// play runs each row on a volume group that is empty but for the thin pool.
func play(t *testing.T, rows []vmRow) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			emptyVG(t)
			makePool(t)
			r.run(t)
		})
	}
}
