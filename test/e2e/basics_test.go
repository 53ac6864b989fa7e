package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (d *driver) volumeCount() int {
	d.t.Helper()
	resp, err := d.controller().ListVolumes(d.t.Context(), &csi.ListVolumesRequest{})
	if err != nil {
		d.t.Fatal(err)
	}
	return len(resp.GetEntries())
}

// TestConcurrentCreates: 50 callers of one name get one volume.
func TestConcurrentCreates(t *testing.T) {
	d := newDriver(t)
	var wg sync.WaitGroup
	ids := make([]string, 50)
	for i := range ids {
		wg.Go(func() {
			v := d.newVolume("shared", "ext4")
			if err := v.create(t.Context()); err != nil {
				t.Errorf("create: %v", err)
			}
			ids[i] = v.id
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two volumes of one name: %s and %s", ids[0], id)
		}
	}
	if n := d.volumeCount(); n != 1 {
		t.Errorf("%d volumes, want 1", n)
	}
}

// TestDeadlineThenRetry: a deadline of 1 ms does not make a second volume.
func TestDeadlineThenRetry(t *testing.T) {
	d := newDriver(t)
	v := d.newVolume("hurried", "ext4")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := v.create(ctx)
	t.Logf("create with a deadline of 1 ms: %v", status.Code(err))
	retry(t, v.create, "create")
	if n := d.volumeCount(); n != 1 {
		t.Errorf("%d volumes, want 1", n)
	}
}

// TestDeleteWhileStaged: a volume in use on this node is not deleted, and its
// data lives.
func TestDeleteWhileStaged(t *testing.T) {
	for _, fsType := range []string{"xfs", "block"} {
		t.Run(fsType, func(t *testing.T) {
			d := newDriver(t)
			v := d.newVolume("used-"+fsType, fsType)
			must(t, v.create, "create")
			must(t, v.stage, "stage")
			code(t, v.delete(t.Context()), codes.FailedPrecondition, "delete of a staged volume")
			must(t, v.publish, "publish")
			code(t, v.delete(t.Context()), codes.FailedPrecondition, "delete of a published volume")
			if fsType != "block" {
				v.reads(t, v.write(t))
			}
			must(t, v.unpublish, "unpublish")
			must(t, v.unstage, "unstage")
			must(t, v.delete, "delete")
			must(t, v.delete, "delete, repeated")
		})
	}
}

// TestPublishTwiceUnpublishOnce: no stack of mounts, and the data is alive.
func TestPublishTwiceUnpublishOnce(t *testing.T) {
	d := newDriver(t)
	v := d.newVolume("twice", "ext4")
	must(t, v.create, "create")
	code(t, v.publish(t.Context()), codes.FailedPrecondition, "publish of what is not staged")
	must(t, v.stage, "stage")
	must(t, v.publish, "publish")
	sum := v.write(t)
	must(t, v.publish, "publish again")
	mounted(t, v.target, 1)
	must(t, v.unpublish, "unpublish")
	mounted(t, v.target, 0)
	must(t, v.publish, "publish")
	v.reads(t, sum)
	must(t, v.unpublish, "unpublish")
	must(t, v.unstage, "unstage")
	must(t, v.stage, "stage within the same second")
	mounted(t, v.staging, 1)
	must(t, v.unstage, "unstage")
	must(t, v.delete, "delete")
}
