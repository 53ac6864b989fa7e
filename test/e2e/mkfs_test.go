package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const mkfsKills = 50

// TestMkfsKilled kills mkfs at random moments, in odd rounds together with the
// driver, as a container's end does. Whatever was left on the device, the retry
// makes the volume usable; once it was used it is never formatted again.
func TestMkfsKilled(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			d := newDriver(t)
			hits := 0
			for i := range mkfsKills {
				v := d.newVolume(numbered("mkfs-"+fsType, i), fsType)
				must(t, v.create, "create")
				if stageAndKill(t, v, i%2 == 1) {
					hits++
				}
				v.surviveMkfs(t)
			}
			t.Logf("mkfs was killed in %d of %d rounds", hits, mkfsKills)
			if hits < mkfsKills/3 {
				t.Errorf("mkfs was killed in %d of %d rounds only: the test proves nothing", hits, mkfsKills)
			}
		})
	}
}

// surviveMkfs takes a volume whose first stage may have been cut through a whole
// life, and looks that it is one file system from then on.
func (v *volume) surviveMkfs(t *testing.T) {
	t.Helper()
	retry(t, v.stage, "stage after a killed mkfs")
	retry(t, v.publish, "publish")
	sum := v.write(t)
	retry(t, v.unpublish, "unpublish")
	retry(t, v.unstage, "unstage")
	retry(t, v.stage, "second stage")
	retry(t, v.publish, "second publish")
	v.reads(t, sum)
	retry(t, v.unpublish, "last unpublish")
	retry(t, v.unstage, "last unstage")
	retry(t, v.delete, "delete")
	_ = os.Remove(v.staging)
}

// stageAndKill stages, kills mkfs a random time after it began, and reports
// whether it was there to be killed. With driver too it kills that first.
func stageAndKill(t *testing.T, v *volume, driver bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	staged := make(chan error, 1)
	go func() { staged <- v.stage(ctx) }()
	mkfs := 0
	for mkfs == 0 {
		select {
		case err := <-staged:
			t.Logf("stage ended before mkfs was seen: %v", err)
			return false
		default:
			mkfs = childMkfs(v.d.PID())
		}
	}
	time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
	if driver {
		if err := v.d.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	killed := syscall.Kill(mkfs, syscall.SIGKILL) == nil
	<-staged
	if driver {
		v.d.start()
	}
	return killed
}

// childMkfs finds the mkfs that process pid runs; 0: none.
func childMkfs(pid int) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		b, _ := os.ReadFile(f) // "PID (comm) state PPID ..."
		var child, parent int
		var comm, state string
		if n, _ := fmt.Sscanf(string(b), "%d %s %s %d", &child, &comm, &state, &parent); n == 4 && parent == pid && strings.HasPrefix(comm, "(mk") {
			return child
		}
	}
	return 0
}
