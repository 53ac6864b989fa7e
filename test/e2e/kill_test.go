package e2e

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// TestKillBetweenRPCs kills the driver after each RPC of a volume's life; the
// life goes on as if nothing had been.
func TestKillBetweenRPCs(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			d := newDriver(t)
			v := d.newVolume("between-"+fsType, fsType)
			life(t, v, func(step func(context.Context) error, what string) {
				must(t, step, what)
				if err := d.Kill(); err != nil {
					t.Fatal(err)
				}
				d.start()
				must(t, step, what+", repeated after kill -9")
			})
		})
	}
}

// TestKillInsideRPCs kills the driver at a random moment of each RPC, many
// lives long, and repeats the RPC as a CO does.
func TestKillInsideRPCs(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			d := newDriver(t)
			for i := range 12 {
				v := d.newVolume(numbered("inside-"+fsType, i), fsType)
				life(t, v, func(step func(context.Context) error, what string) {
					killDuring(t, d, step)
					retry(t, step, what+", repeated after kill -9 inside")
				})
			}
		})
	}
}

// killDuring starts a step and kills the driver up to 6 ms later.
func killDuring(t *testing.T, d *driver, step func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = step(ctx) // its outcome is what nobody knows
	}()
	time.Sleep(time.Duration(rand.IntN(6000)) * time.Microsecond)
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	<-done
	d.start()
}

// life leads a volume from create to delete; do performs each RPC.
func life(t *testing.T, v *volume, do func(step func(context.Context) error, what string)) {
	t.Helper()
	do(v.create, "create")
	do(v.stage, "stage")
	mounted(t, v.staging, 1)
	do(v.publish, "publish")
	mounted(t, v.target, 1)
	sum := v.write(t)
	do(v.expand, "expand")
	v.reads(t, sum)
	do(v.unpublish, "unpublish")
	mounted(t, v.target, 0)
	do(v.unstage, "unstage")
	mounted(t, v.staging, 0)
	do(v.stage, "second stage")
	do(v.publish, "second publish")
	v.reads(t, sum)
	do(v.unpublish, "second unpublish")
	do(v.unstage, "second unstage")
	do(v.delete, "delete")
}
