package main

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends/lvm"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// TestBench measures volumes' lives by this driver, by RPC, beside the commands that
// an administrator would type, in turns, in one boot (make bench-lvm).
func TestBench(t *testing.T) {
	if os.Getenv("CSIKIT_LVM") != "bench" {
		t.Skip("not asked for: make bench-lvm")
	}
	if !testenv.InVM(t, "8G") {
		return
	}
	shell(t, "lvm", "vgcreate", "-qq", "-y", "--metadatasize", "16m", "vgt", "/dev/ubdb")
	shell(t, "lvm", "lvcreate", "-qq", "-y", "--type", "thin-pool", "-L", "1500M", "-n", "pool", "vgt")
	d := startBench(t)
	for _, class := range []string{"linear", "thin"} {
		for _, n := range []int{1, 8} {
			t.Run(fmt.Sprintf("%s, %d at a time", class, n), func(t *testing.T) { lives(t, d, class, n) })
		}
	}
	t.Run("1000 LVs", func(t *testing.T) { thousand(t, d) })
}

// shell runs a command as an administrator does.
func shell(t testing.TB, argv ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LVM_SUPPRESS_FD_WARNINGS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

type benchDriver struct {
	csi.ControllerClient
	csi.NodeClient
	dir string
}

func startBench(t *testing.T) *benchDriver {
	t.Helper()
	b, err := lvm.New(lvm.Options{Driver: "lvm.csikit.dev", Node: "node-1", Classes: []lvm.Class{
		{Name: "linear", VG: "vgt"}, {Name: "thin", VG: "vgt", Profile: lvm.Thin, ThinPool: "pool", Overcommit: 100},
	}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	engine, err := mounter.New(b, &mounter.Options{StateDir: filepath.Join(dir, "state"), AllowVolatileState: true, DefaultFS: "ext4"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := csidriver.New(csidriver.Config{Name: "lvm.csikit.dev", Traits: b.Traits(), Controller: b, Node: b},
		&csidriver.Options{NodeID: "node-1", Engine: engine, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "unix://" + filepath.Join(dir, "s")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, endpoint) }()
	target, err := csiclient.Target(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := csiclient.Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = b.Close()
	})
	if err := csiclient.WaitReady(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return &benchDriver{csi.NewControllerClient(conn), csi.NewNodeClient(conn), dir}
}

const benchSize = 64 << 20

var mounted = &csi.VolumeCapability{
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
}

func (d *benchDriver) paths(name string) (staging, target string) {
	return filepath.Join(d.dir, name+"-s"), filepath.Join(d.dir, name+"-t")
}

// birth is a volume from create to published.
func (d *benchDriver) birth(t *testing.T, class, name string) (id string) {
	t.Helper()
	staging, target := d.paths(name)
	v, err := d.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: benchSize}, VolumeCapabilities: []*csi.VolumeCapability{mounted}, Parameters: map[string]string{"class": class},
	})
	if err != nil {
		t.Error(err)
		return ""
	}
	id = v.GetVolume().GetVolumeId()
	_, err = d.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: staging, VolumeCapability: mounted})
	if err == nil {
		_, err = d.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: mounted})
	}
	if err != nil {
		t.Error(err)
	}
	return id
}

// death is one from unpublish to deleted.
func (d *benchDriver) death(t *testing.T, name, id string) {
	t.Helper()
	staging, target := d.paths(name)
	_, err := d.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
	if err == nil {
		_, err = d.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging})
	}
	if err == nil {
		_, err = d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	}
	if err != nil {
		t.Error(err)
	}
}

// typed are the commands that do the same: with tags, that is as safe from a kill, or
// without, as most would type them.
func (d *benchDriver) typedBirth(t *testing.T, class, name string, tags bool) {
	t.Helper()
	staging, target := d.paths(name)
	lv := "vgt/" + name
	argv := []string{"lvm", "lvcreate", "-qq", "-y", "-n", name, "--addtag", "ready"}
	if class == "thin" {
		argv = append(argv, "--type", "thin", "--thinpool", "pool", "-V", "64M", "vgt")
	} else {
		argv = append(argv, "-L", "64M", "-Zy", "-Wy", "vgt")
	}
	shell(t, argv...)
	if tags {
		shell(t, "lvm", "lvchange", "-qq", "--addtag", "started", lv)
	}
	shell(t, "mkfs.ext4", "-q", "/dev/"+lv)
	if tags {
		shell(t, "lvm", "lvchange", "-qq", "--deltag", "started", "--addtag", "done", lv)
	}
	for _, p := range []string{staging, target} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Error(err)
		}
	}
	shell(t, "mount", "/dev/"+lv, staging)
	shell(t, "mount", "--bind", staging, target)
}

func (d *benchDriver) typedDeath(t *testing.T, class, name string, tags bool) {
	t.Helper()
	staging, target := d.paths(name)
	shell(t, "umount", target)
	shell(t, "umount", staging)
	if class == "linear" {
		if tags {
			shell(t, "lvm", "lvchange", "-qq", "--addtag", "deleting", "vgt/"+name)
		}
		shell(t, "blkdiscard", "-z", "/dev/vgt/"+name)
	}
	shell(t, "lvm", "lvremove", "-qq", "-y", "vgt/"+name)
}

// side is one way to live.
type side struct {
	name         string
	birth, death func(t *testing.T, name string)
	births       []time.Duration
	deaths       []time.Duration
}

// timed runs n at a time.
func timed(n int, run func(i int)) time.Duration {
	start := time.Now()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { run(i) })
	}
	all.Wait()
	return time.Since(start)
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

func lives(t *testing.T, d *benchDriver, class string, n int) {
	ids := make([]string, n)
	index := func(name string) (i int) {
		_, _ = fmt.Sscanf(name[strings.LastIndexByte(name, '-')+1:], "%d", &i) // its own
		return i
	}
	sides := []*side{
		{
			name:  "csikit",
			birth: func(t *testing.T, name string) { ids[index(name)] = d.birth(t, class, name) },
			death: func(t *testing.T, name string) { d.death(t, name, ids[index(name)]) },
		},
		{
			name:  "the same commands",
			birth: func(t *testing.T, name string) { d.typedBirth(t, class, name, true) },
			death: func(t *testing.T, name string) { d.typedDeath(t, class, name, true) },
		},
		{
			name:  "without tags",
			birth: func(t *testing.T, name string) { d.typedBirth(t, class, name, false) },
			death: func(t *testing.T, name string) { d.typedDeath(t, class, name, false) },
		},
	}
	const rounds = 5
	for r := range rounds + 1 {
		for _, s := range sides {
			name := func(i int) string { return fmt.Sprintf("b%d-%d", r, i) }
			born := timed(n, func(i int) { s.birth(t, name(i)) })
			dead := timed(n, func(i int) { s.death(t, name(i)) })
			if r > 0 { // the first warms up
				s.births, s.deaths = append(s.births, born), append(s.deaths, dead)
			}
		}
	}
	for _, s := range sides {
		b, e := median(s.births), median(s.deaths)
		t.Logf("%-18s create to published %6d ms (%.2f)   unpublish to deleted %6d ms (%.2f)", s.name,
			b.Milliseconds(), float64(median(sides[0].births))/float64(b), e.Milliseconds(), float64(median(sides[0].deaths))/float64(e))
	}
}

// thousand lists 1,000 volumes and asks for the capacity beside them.
func thousand(t *testing.T, d *benchDriver) {
	fillVG(t, 1000)
	var lists, caps, lvs, vgs []time.Duration
	count := 0
	for range 7 {
		lists = append(lists, timed(1, func(int) {
			count = 0
			for token := ""; ; {
				r, err := d.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: token})
				if err != nil {
					t.Error(err)
					return
				}
				count += len(r.GetEntries())
				if token = r.GetNextToken(); token == "" {
					return
				}
			}
		}))
		caps = append(caps, timed(1, func(int) {
			if _, err := d.GetCapacity(t.Context(), &csi.GetCapacityRequest{}); err != nil {
				t.Error(err)
			}
		}))
		lvs = append(lvs, timed(1, func(int) {
			shell(t, "lvm", "lvs", "--reportformat", "json", "-o", "lv_name,lv_uuid,lv_size,lv_tags", "vgt")
		}))
		vgs = append(vgs, timed(1, func(int) { shell(t, "lvm", "vgs", "--reportformat", "json", "-o", "vg_free", "vgt") }))
	}
	if count != 1000 {
		t.Errorf("%d volumes are listed", count)
	}
	t.Logf("ListVolumes %d ms, lvs %d ms; GetCapacity %d ms, vgs %d ms", median(lists).Milliseconds(), median(lvs).Milliseconds(), median(caps).Milliseconds(), median(vgs).Milliseconds())
}

// fillVG writes n volumes of one extent into the metadata, by one command.
func fillVG(t *testing.T, n int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vg")
	shell(t, "lvm", "vgcfgbackup", "-qq", "-f", file, "vgt")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "\tlogical_volumes {\n"
	head, tail, found := strings.Cut(string(text), mark)
	if !found {
		t.Fatal("no logical volumes")
	}
	var b strings.Builder
	for i := range n {
		b.WriteString(volumeText(i))
	}
	if err := os.WriteFile(file, []byte(head+mark+b.String()+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, "lvm", "vgcfgrestore", "-qq", "-y", "--force", "-f", file, "vgt")
}

// volumeText is what lvm writes of a volume of this driver, behind all others.
func volumeText(i int) string {
	name := fmt.Sprintf("many-%d", i)
	sum := sha256.Sum256([]byte(name))
	lv := "v-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:26]
	id := fmt.Sprintf("%06d-aaaa-bbbb-cccc-dddd-eeee-ffffff", i)
	return fmt.Sprintf(`
		%s {
			id = "%s"
			status = ["READ", "WRITE", "VISIBLE"]
			flags = []
			tags = ["csi.c=linear", "csi.d=lvm.csikit.dev", "csi.f=0123456789abcdef0123456789abcdef", "csi.fmt=ext4:done", "csi.k=v", "csi.n=%s", "csi.o=0123456789ab", "csi.s=ready", "csi.t=1795327200", "csi.v=1"]
			creation_time = 1795327200
			creation_host = "vm"
			segment_count = 1
			segment1 {
				start_extent = 0
				extent_count = 1
				type = "striped"
				stripe_count = 1
				stripes = [ "pv0", %d ]
			}
		}
`, lv, id, base64.RawURLEncoding.EncodeToString([]byte(name)), 600+i)
}
