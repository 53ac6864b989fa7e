package lvm

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/luks"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// TestRealServices is what a volume can do besides being made and deleted, in one
// boot.
func TestRealServices(t *testing.T) {
	if !testenv.InVM(t, "200M", "200M") {
		return
	}
	makeVG(t, "/dev/ubdb", "/dev/ubdc")
	for _, row := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"limits", limited},
		{"read-ahead and resync", modified},
		{"pool on demand, extended, full", poolLife},
		{"pool half made", poolHalfMade},
		{"encrypted", encrypted},
		{"inline", inline},
	} {
		t.Run(row.name, func(t *testing.T) {
			emptyVG(t)
			row.run(t)
		})
	}
}

// newCgroup makes a cgroup whose I/O can be limited.
func newCgroup(t *testing.T) iolimit.Cgroup {
	t.Helper()
	const root = "/sys/fs/cgroup"
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+io"), 0); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "pods")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return iolimit.Cgroup(dir)
}

// written is how long a process of the cgroup takes to write 1 MiB.
func written(t *testing.T, group iolimit.Cgroup, dev string) time.Duration {
	t.Helper()
	d, err := os.Open(string(group))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := exec.Command("dd", "if=/dev/zero", "of="+dev, "bs=64k", "count=16", "oflag=direct", "status=none")
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())}
	start := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("dd: %v\n%s", err, out)
	}
	return time.Since(start)
}

// What is limited takes 2 s by its limit and milliseconds without, and what tells
// them apart is whether it takes 1 s.
func limited(t *testing.T) {
	makePool(t)
	group := newCgroup(t)
	o := testOptions()
	o.Cgroup = string(group)
	b := open(t, o)
	for _, class := range []string{"linear", "thin"} {
		v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{
			Name: "pvc-1", Size: 8 << 20, Parameters: map[string]string{paramClass: class}, Mutable: map[string]string{"write-bps": "512Ki"},
		})
		if err != nil {
			t.Fatal(err)
		}
		src := opened(t, b, v.ID, true)
		if d := written(t, group, src.Device.Path); d < time.Second {
			t.Errorf("%s: created with a limit: %v", class, d)
		}
		if err := modify(t, b, v.ID, "write-bps", "max"); err != nil {
			t.Fatal(err)
		}
		d := written(t, group, src.Device.Path)
		for range 5 { // a disk may be busy now and then, but not each time
			if d >= time.Second {
				d = written(t, group, src.Device.Path)
			}
		}
		if d >= time.Second {
			t.Errorf("%s: lifted: %v", class, d)
		}
		if err := modify(t, b, v.ID, "write-bps", "512Ki"); err != nil {
			t.Fatal(err)
		}
		if d := written(t, group, src.Device.Path); d < time.Second {
			t.Errorf("%s: modified in use: %v", class, d)
		}
		closed(t, b, v.ID, src)
		deleted(t, b, v.ID)
		if got, err := os.ReadFile(group.File()); err != nil || len(bytes.TrimSpace(got)) != 0 {
			t.Errorf("%s: closed: io.max %q, %v", class, got, err)
		}
	}
}

func field(t *testing.T, name, lv string) string {
	t.Helper()
	return strings.TrimSpace(lvm(t, "lvs", "--noheadings", "--units", "k", "-o", name, testVG+"/"+lv))
}

func modified(t *testing.T) {
	makePool(t)
	b := open(t, testOptions())
	for _, class := range []string{"linear", "thin", "raid1"} {
		v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{
			Name: "pvc-1", Size: 8 << 20, Parameters: map[string]string{paramClass: class}, Mutable: map[string]string{paramReadAhead: "256Ki"},
		})
		if err != nil {
			t.Fatal(err)
		}
		src := opened(t, b, v.ID, true)
		f, err := os.OpenFile(src.Device.Path, os.O_RDWR, 0) // in use
		if err != nil {
			t.Fatal(err)
		}
		kernel := func() string {
			got, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(src.Device.Path), "queue/read_ahead_kb"))
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(got))
		}
		if got := kernel(); got != "256" {
			t.Errorf("%s: created with 256Ki: %s", class, got)
		}
		if err := modify(t, b, v.ID, paramReadAhead, "1Mi"); err != nil {
			t.Fatal(err)
		}
		if got := kernel(); got != "1024" {
			t.Errorf("%s: modified to 1Mi in use: %s", class, got)
		}
		// lvm refuses a whole command over one value that the LV has already.
		lvm(t, "lvchange", "-qq", "--readahead", "auto", testVG+"/"+nameOf(kindVolume, "pvc-1"))
		if err := modify(t, b, v.ID, paramReadAhead, "auto"); err != nil {
			t.Error(err)
		}
		if class == "raid1" {
			for value, want := range map[string]string{"1Mi": "1024", "max": ""} {
				if err := modify(t, b, v.ID, paramResync, value); err != nil {
					t.Fatal(err)
				}
				if got := field(t, "raid_max_recovery_rate", nameOf(kindVolume, "pvc-1")); strings.TrimSuffix(got, ".00k") != want && (want != "" || got != "0") {
					t.Errorf("resync %s: %q", value, got)
				}
			}
		}
		f.Close()
		closed(t, b, v.ID, src)
		deleted(t, b, v.ID)
	}
}

func fillDevice(t *testing.T, path string, n int64) error {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	buf[0] = 1
	for off := int64(0); off < n; off += 1 << 20 {
		if _, err := f.WriteAt(buf, off); err != nil {
			return err
		}
	}
	return nil
}

func poolLife(t *testing.T) {
	o := optionsFor("thin")
	c := &o.Classes[0]
	c.PoolSize, c.PoolMax = 32<<20, 100<<20
	o.PoolInterval = 200 * time.Millisecond
	b := open(t, o)
	v := createVolume(t, b, "pvc-1", "thin", 160<<20)
	if got := field(t, "lv_when_full,zero", testPool); strings.Join(strings.Fields(got), " ") != "error zero" {
		t.Errorf("%q", got)
	}
	src := opened(t, b, v.ID, true)
	// Nobody looks after it: what is written to a full pool fails.
	if err := fillDevice(t, src.Device.Path, 40<<20); err == nil {
		t.Error("40 MiB fit into a pool of 32")
	}
	h, err := b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
	if err != nil || len(h) == 0 || h[0].Reason != "ThinPoolFull" {
		t.Errorf("%+v, %v", h, err)
	}
	if err := b.RecoverController(t.Context()); err != nil { // begins to
		t.Fatal(err)
	}
	for at := int64(40); at <= 80; at += 20 {
		ok := false
		for range 600 {
			if ok = fillDevice(t, src.Device.Path, at<<20) == nil; ok {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if !ok {
			t.Fatalf("%d MiB do not fit into a pool of up to 100", at)
		}
	}
	if err := fillDevice(t, src.Device.Path, 120<<20); err == nil {
		t.Error("120 MiB fit into a pool of 100")
	}
	// A full pool is extended when it is looked at next, and no further than to its cap.
	got := ""
	for range 600 {
		if got = field(t, "lv_size", testPool); got == "102400.00k" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := fillDevice(t, src.Device.Path, 120<<20); err == nil {
		t.Error("120 MiB fit into a pool at its cap")
	}
	if now := field(t, "lv_size", testPool); got != "102400.00k" || now != got {
		t.Errorf("the pool has %s and then %s, and its cap is 100 MiB", got, now)
	}
	closed(t, b, v.ID, src)
	deleted(t, b, v.ID)
}

// poolHalfMade has lvm killed at each write of the metadata while it makes a pool.
func poolHalfMade(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("missing: strace")
	}
	o := optionsFor("thin")
	o.Classes[0].PoolSize = 32 << 20
	b := open(t, o)
	for n := 3; ; n += 33 {
		cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "inject=ioctl:signal=SIGKILL:when="+strconv.Itoa(n), "lvm", "lvcreate", "-qq", "-y", "--type", "thin-pool",
			"--name", testPool, "--size", "32M", "--zero", "y", "--addtag", tagPool+o.Driver, testVG)
		err := cmd.Run()
		if err == nil {
			break
		}
		v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "a", Size: 4 << 20})
		if err != nil {
			t.Fatalf("killed at ioctl %d: %v\n%s", n, err, lvm(t, "lvs", "-a", "-o", "lv_name,lv_layout,lv_attr,lv_tags", testVG))
		}
		deleted(t, b, v.ID)
		lvm(t, "lvremove", "-qq", "-ff", "-y", testVG)
	}
}

// encrypted is a volume's life by the engine: its device holds no word of it.
func encrypted(t *testing.T) {
	if out, err := exec.Command("modprobe", "dm-crypt").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := open(t, optionsFor("linear"))
	dir := t.TempDir()
	e, err := mounter.New(b, &mounter.Options{StateDir: filepath.Join(dir, "state"), AllowVolatileState: true, DefaultFS: "ext4"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1", Size: 64 << 20, Parameters: map[string]string{luks.Param: "true"}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "staging")
	stage := func(keys map[string]string) error {
		return e.Stage(t.Context(), mounter.StageRequest{
			ID: v.ID, Path: path, Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"}, Secrets: backends.NewSecrets(keys),
		})
	}
	unstage := func() {
		t.Helper()
		if err := e.Unstage(t.Context(), mounter.UnstageRequest{ID: v.ID, Path: path}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stage(nil); !errors.Is(err, backends.ErrUnauthenticated) {
		t.Errorf("without a key: %v", err)
	}
	if err := stage(map[string]string{luks.SecretKey: "key-1"}); err != nil {
		t.Fatal(err)
	}
	words := []byte("the plain words")
	if err := os.WriteFile(filepath.Join(path, "f"), words, 0o600); err != nil {
		t.Fatal(err)
	}
	// It grows in use, and then the file system and what is below it.
	if n, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 128 << 20}); err != nil || n != 128<<20 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := e.Expand(t.Context(), mounter.ExpandRequest{ID: v.ID, Path: path, StagingPath: path, Secrets: backends.NewSecrets(map[string]string{luks.SecretKey: "key-1"})}); err != nil {
		t.Error(err)
	}
	var st unix.Statfs_t
	size := func() int64 { return int64(st.Blocks) * int64(st.Bsize) } //nolint:unconvert // int32 on 386
	if err := unix.Statfs(path, &st); err != nil || size() < 90<<20 {
		t.Errorf("%d bytes, %v", size(), err)
	}
	unstage()
	src := activated(t, b, v.ID)
	if got := read(t, src, 128<<20, 0); bytes.Contains(got, words) {
		t.Error("it is not encrypted")
	}
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID}); err != nil {
		t.Error(err)
	}
	deleted(t, b, v.ID)
}

// activated activates a volume as an administrator would, and gives its device.
func activated(t *testing.T, b *Backend, id string) string {
	t.Helper()
	c, v, err := b.ready(t.Context(), id, kindVolume)
	if err != nil {
		t.Fatal(err)
	}
	path, err := b.activate(t.Context(), c, v)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// inline is a pod's volume: made by the node, gone with the pod, and with the
// records.
func inline(t *testing.T) {
	makePool(t)
	o := podOptions()
	b := open(t, o)
	for _, class := range []string{"linear", "thin"} {
		v, err := pod(t, b, "csi-"+class, "size", "8Mi", paramClass, class)
		if err != nil {
			t.Fatal(err)
		}
		src := opened(t, b, v.ID, false)
		write(t, src.Device.Path, []byte("scratch"), 0)
		closed(t, b, v.ID, src)
		for range 2 {
			if err := b.DeleteEphemeral(t.Context(), backends.DeleteEphemeralRequest{ID: "csi-" + class, VolumeID: v.ID}); err != nil {
				t.Error(err)
			}
		}
		if _, err := pod(t, b, "lost", "size", "8Mi", paramClass, class); err != nil {
			t.Fatal(err)
		}
		b = open(t, o)
		if err := b.RecoverNode(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if left := strings.Fields(lvm(t, "lvs", "--noheadings", "-o", "lv_name", testVG)); !slices.Equal(left, []string{testPool}) {
			t.Errorf("%s: left: %q", class, left)
		}
	}
}
