package mounter_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// TestLUKSDriverKilled: the driver is killed (kill -9) before each step of the
// first stage, and of the unstage. The next driver goes on.
func TestLUKSDriverKilled(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	for n := 1; ; n++ {
		r := newLUKSVM(t, n%2 == 0)
		r.make("v", 32*mib)
		must(t, r.Close())
		killed := r.child(luksJob{Step: n})
		r.start(nil)
		r.stage("v", "ext4")
		r.write("v", "data")
		must(t, r.Close())
		killedAgain := r.child(luksJob{Step: n, Unstage: true})
		r.start(nil)
		r.unstage("v")
		r.nothing()
		r.stage("v", "ext4")
		r.wantFile("v", "data")
		r.unstage("v")
		r.nothing()
		if t.Failed() {
			t.Fatalf("killed before step %d", n)
		}
		if !killed && !killedAgain {
			if n < 8 {
				t.Errorf("only %d steps", n)
			}
			break
		}
	}
}

// TestLUKSFormatKilled: cryptsetup itself is killed at a random moment, as often as
// it takes until a luksFormat and an mkfs have come through; then everything
// forgets, save the header, and the volume is as it was.
func TestLUKSFormatKilled(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	r := newLUKSVM(t, true)
	kills, states := 0, map[string]int{}
	const latest = 150 * time.Millisecond
	longest := latest
	for range 150 { // many a kill comes too late
		r.make("v", 64*mib)
		r.vault.enc = quick(luksKey)
		r.vault.enc.Iterations = 50000 // some time to be killed in
		stop := r.killer("cryptsetup", rand.N(longest))
		err := r.Stage(t.Context(), r.stageReq("v", "ext4"))
		if stop() {
			kills++
			longest = min(longest*3/2, latest)
		} else {
			longest = max(longest*3/4, time.Millisecond) // how fast this machine is, nobody knows
		}
		if err != nil {
			wantKind(t, err, backends.ErrUnavailable)
			states[r.blkid("v")]++
			r.stage("v", "ext4")
		}
		r.write("v", "data")
		must(t, r.Close())
		must(t, os.RemoveAll(r.state))
		r.start(nil)
		r.unstage("v")
		r.nothing()
		r.stage("v", "ext4")
		r.wantFile("v", "data")
		r.unstage("v")
		r.nothing()
		run(t, "losetup", "-d", r.loop("v"))
		must(t, os.Remove(r.vault.file("v")+".json"))
		if t.Failed() || kills >= 12 {
			break
		}
	}
	t.Logf("%d kills, left behind: %v", kills, states)
	if kills < 10 {
		t.Errorf("only %d kills", kills)
	}
}

// blkid says what a device holds.
func (r *luksRig) blkid(id string) string {
	b, err := os.ReadFile(r.vault.file(id))
	must(r.t, err)
	switch {
	case strings.HasPrefix(string(b), "LUKS") && bytes.Contains(b[4096:16384], []byte(`"kdf"`)):
		return "a header with a key"
	case strings.HasPrefix(string(b), "LUKS"):
		return "a header without a key"
	case len(bytes.Trim(b, "\x00")) == 0:
		return "nothing"
	}
	return "noise"
}

// killer kills the first process of that name, so long after it appears.
func (r *luksRig) killer(name string, after time.Duration) (stop func() (killed bool)) {
	var wg sync.WaitGroup
	done, killed := make(chan struct{}), false
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			for _, pid := range processes(name) {
				time.Sleep(after)
				killed = syscall.Kill(pid, syscall.SIGKILL) == nil
				return
			}
		}
	})
	return func() bool { close(done); wg.Wait(); return killed }
}

// TestLUKSFormatOutlivesDriver: the driver dies, its luksFormat goes on. The next
// driver waits for its end, and formats nothing below it.
func TestLUKSFormatOutlivesDriver(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	r := newLUKSVM(t, true)
	r.make("v", 64*mib)
	must(t, r.Close())
	if !r.child(luksJob{Orphan: "luksFormat"}) {
		t.Skip("it was over too soon")
	}
	r.start(nil)
	for programRuns("cryptsetup") {
		if err := r.Stage(t.Context(), r.stageReq("v", "ext4")); err == nil {
			break
		}
	}
	r.stage("v", "ext4")
	r.unstage("v")
	r.nothing()
}

// TestLUKSKeyRotates, killed before each of its steps; also with the volume open
// already, and with a crash between the two.
func TestLUKSKeyRotates(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	for _, at := range []string{"", "luksOpen", "luksAddKey", "try key", "luksKillSlot", "mount ext4"} {
		r := newLUKSVM(t, false)
		r.make("v", 32*mib)
		r.stage("v", "ext4")
		r.write("v", "data")
		r.unstage("v")
		must(t, r.Close())
		if killed := r.child(luksJob{Key: "new\nkey", Previous: luksKey, At: at}); killed != (at != "") {
			t.Fatalf("killed: %v", killed)
		}
		old, key := r.opens("v", luksKey), r.opens("v", "new\nkey")
		want := map[string][2]bool{"luksOpen": {true, false}, "luksAddKey": {true, false}, "try key": {true, true}, "luksKillSlot": {true, true}}
		if w, ok := want[at]; !ok && (old || !key) || ok && w != [2]bool{old, key} {
			t.Errorf("killed before %q: the old key opens %v, the new one %v", at, old, key)
		}
		r.vault.enc = quick("new\nkey")
		r.vault.enc.PreviousKey = backends.NewSecret(luksKey)
		r.start(nil)
		r.stage("v", "ext4")
		r.wantFile("v", "data")
		if !r.opens("v", "new\nkey") {
			t.Fatalf("killed before %q: the new key does not open it", at)
		}
		r.unstage("v")
		r.stage("v", "ext4")
		if r.opens("v", luksKey) {
			t.Errorf("killed before %q: the old key still opens it", at)
		}
		r.unstage("v")
		r.nothing()
	}
}

// TestLUKSKeyIsNowhere looks for the keys in every command line and environment
// while they are used, and afterwards in logs, errors and records.
func TestLUKSKeyIsNowhere(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	const canary = "canary-7f3a"
	r := newLUKSVM(t, true)
	r.make("v", 64*mib)
	var seen []string
	var samples int
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, pid := range processes("cryptsetup") {
				for _, f := range []string{"cmdline", "environ"} {
					b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), f))
					if err == nil && len(b) > 0 {
						samples++
					}
					if bytes.Contains(b, []byte(canary)) {
						seen = append(seen, f+": "+strings.ReplaceAll(string(b), "\x00", " "))
					}
				}
			}
		}
	})
	errs := []string{}
	for _, keys := range [][2]string{{canary + "-1"}, {canary + "-2"}, {canary + "-2", canary + "-1"}, {canary + "-3", canary + "-4"}} {
		r.vault.enc = quick(keys[0])
		r.vault.enc.PreviousKey = backends.NewSecret(keys[1])
		if err := r.Stage(t.Context(), r.stageReq("v", "ext4")); err != nil {
			errs = append(errs, err.Error())
			continue
		}
		files, _ := filepath.Glob(r.state + "/v1/*")
		for _, f := range files {
			b, err := os.ReadFile(f)
			must(t, err)
			errs = append(errs, string(b))
		}
		r.unstage("v")
	}
	close(done)
	wg.Wait()
	if samples < 4 || len(errs) < 4 {
		t.Errorf("%d samples, %d texts", samples, len(errs))
	}
	errs = append(errs, r.log.String())
	for _, s := range slices.Concat(seen, errs) {
		if strings.Contains(s, canary) {
			t.Errorf("a key shows: %s", s)
		}
	}
	if !strings.Contains(r.log.String(), "luksAddKey") {
		t.Error("the log shows no commands")
	}
	r.nothing()
}

// TestLUKSFailsInside: what a stage opened before it failed is closed by the unstage.
func TestLUKSFailsInside(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	r := newLUKSVM(t, false)
	r.make("v", 64*mib)
	r.stage("v", "ext4")
	r.unstage("v")
	req := r.stageReq("v", "xfs")
	wantKind(t, r.Stage(t.Context(), req), backends.ErrPrecondition)
	r.nothing()
	r.stage("v", "ext4")
	err := r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: req.Path})
	must(t, err)
	r.nothing()
}
