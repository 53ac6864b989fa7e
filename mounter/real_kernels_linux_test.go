package mounter_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestOldKernel runs the engine's tests of mounts on this machine once more, without
// what Linux has got for them since 4.18: mount(2), mountinfo and fdinfo alone.
func TestOldKernel(t *testing.T) {
	testenv.Root(t)
	again(t, "old")
}

// TestVM runs the engine's tests on the VM's kernel: all as it is, and those of
// mounts without the newer calls.
func TestVM(t *testing.T) {
	t.Setenv("VM_MEM", "2048") // some tests hold a volume in memory
	if !testenv.InVM(t, "8G") {
		return
	}
	// The rest of the VM's disk is memory.
	disk := t.TempDir()
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "/dev/ubdb")
	must(t, mnt.Mount("/dev/ubdb", "ext4", disk, mnt.Options{}))
	t.Cleanup(func() {
		if _, err := mnt.Unwind(disk); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", disk)
	run(t, "modprobe", "fuse")
	for _, api := range []string{"new", "old"} {
		t.Run(api, func(t *testing.T) { again(t, api) })
	}
}

// TestRealDaysWorkReadsNoTable: with the newer calls nothing of a volume's life
// reads the mount table, which grows with every pod of the node.
func TestRealDaysWorkReadsNoTable(t *testing.T) {
	if os.Getenv(envAPI) == "old" {
		t.Skip("the older interface is the table")
	}
	_, r := newRealVolume(t, 64*mib)
	table := "/proc/" + strconv.Itoa(os.Getpid()) + "/mountinfo"
	lie := r.path("lie")
	must(t, os.WriteFile(lie, []byte("not to be read\n"), 0o600))
	must(t, unix.Mount(lie, table, "", unix.MS_BIND, ""))
	off := sync.OnceFunc(func() { must(t, unix.Unmount(table, unix.MNT_DETACH)) })
	t.Cleanup(off)
	if _, err := mnt.List(); err == nil {
		t.Fatal("the table can still be read")
	}
	for range 2 {
		r.stage("v", "ext4")
		r.stage("v", "ext4")
		r.publish("v", "t")
		r.publish("v", "t")
		r.unpublish("v", "t")
		r.unpublish("v", "t")
		r.unstage("v")
		r.unstage("v")
	}
	off()
	r.gone("v")
}

// ofDisks are the tests about what is on a disk: long, and the same with every way
// to mount.
const ofDisks = "^TestReal(Copies|Grow|Lost|Shrunk|Btrfs|Clone|Mkfs|Damaged|Dirty|Reader|Unreadable|Foreign|OtherType|Done)"

// again runs the tests of the engine on a real kernel in a process of their own,
// which is told what to use of it.
func again(t *testing.T, api string) {
	if testing.Short() {
		t.Skip("short")
	}
	args := []string{"-test.run=^TestReal", "-test.v", "-test.timeout=10m"}
	if api == "old" {
		args = append(args, "-test.skip="+ofDisks)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envAPI+"="+api)
	out, err := cmd.CombinedOutput()
	passed := 0
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "--- PASS: "):
			passed++
		case strings.Contains(line, "--- FAIL: "), strings.Contains(line, "--- SKIP: "):
			t.Logf("%s: %s", api, strings.TrimSpace(line))
		}
	}
	if err != nil || passed < 15 {
		t.Errorf("%s: %d tests passed, %v\n%s", api, passed, err, out)
	}
}
