package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestServer is a server that lives, with what an administrator does to it.
func TestServer(t *testing.T) {
	if !testenv.InVM(t, "1G", "128M") {
		return
	}
	serve(t, "/dev/ubdb", "xfs")
	r := newRig(t, disk(t, "/dev/ubdc"), "-any-share", "-mount-group")
	for _, tc := range []struct {
		name string
		f    func(t *testing.T, r *rig)
	}{
		{"modes", modes}, {"read-only targets", readOnlyTargets}, {"group", group}, {"options", options}, {"two volumes", twoVolumes}, {"refusals", refusals},
		{"replaced", replaced}, {"unexported", unexported}, {"full", full}, {"killed", killed}, {"inline", inline},
		{"nfs 3", nfs3}, // the last: the server is another one afterwards
	} {
		t.Run(tc.name, func(t *testing.T) {
			own := *r
			own.t = t
			tc.f(t, &own)
			if b, _ := os.ReadFile("/proc/self/mounts"); !t.Failed() && strings.Contains(string(b), "127.0.0.1:/") {
				t.Errorf("mounts are left:\n%s", b)
			}
		})
	}
}

// mountLine is the line of /proc/self/mounts of a path.
func mountLine(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+path+" ") {
			return line
		}
	}
	t.Fatalf("nothing is mounted at %s:\n%s", path, b)
	return ""
}

func modes(t *testing.T, r *rig) {
	for mode := range csi.VolumeCapability_AccessMode_Mode_name {
		m := csi.VolumeCapability_AccessMode_Mode(mode)
		if m == csi.VolumeCapability_AccessMode_UNKNOWN {
			continue
		}
		v := vol{id: "mode-" + strings.ToLower(m.String()), subDir: "modes", mode: m}
		r.up(v)
		readOnly := strings.HasSuffix(m.String(), "READER_ONLY")
		if err := os.WriteFile(filepath.Join(r.target(v, 1), "f"), nil, 0o600); errors.Is(err, syscall.EROFS) != readOnly {
			t.Errorf("%s: write: %v", m, err)
		}
		r.down(v)
	}
}

func readOnlyTargets(t *testing.T, r *rig) {
	v := vol{id: "ro", subDir: "ro"}
	r.up(v)
	r.must(r.publish(v, 2, true))
	r.must(r.publish(v, 2, true))
	if err := r.publish(v, 2, false); status.Code(err) != codes.AlreadyExists {
		t.Errorf("published read-only and asked for writable: %v", err)
	}
	r.must(os.WriteFile(filepath.Join(r.target(v, 1), "f"), []byte("shared"), 0o600))
	if b, err := os.ReadFile(filepath.Join(r.target(v, 2), "f")); err != nil || string(b) != "shared" {
		t.Errorf("what one pod wrote the other one reads as %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(r.target(v, 2), "g"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to a read-only target: %v", err)
	}
	r.must(r.unpublish(v, 2))
	r.down(v)
}

func group(t *testing.T, r *rig) {
	v := vol{id: "group", subDir: "group", group: "4242"}
	r.up(v)
	st, err := os.Stat(filepath.Join(export, "group"))
	r.must(err)
	if gid := st.Sys().(*syscall.Stat_t).Gid; gid != 4242 || st.Mode()&os.ModeSetgid == 0 || st.Mode().Perm()&0o070 != 0o070 {
		t.Errorf("group %d, mode %v", gid, st.Mode())
	}
	r.down(v)
}

func options(t *testing.T, r *rig) {
	for _, tc := range []struct{ options, want string }{
		{"vers=4.1", "vers=4.1,"}, {"vers=4.2,nconnect=3", "nconnect=3,"}, {"", "vers=4.2,"}, {"soft,timeo=70", "soft,"},
		{"nfsvers=4.0,sec=sys", "vers=4.0,"}, {"noatime,nodev", "noatime"}, {"v4.1", "vers=4.1,"},
	} {
		v := vol{id: "options", subDir: "options", options: tc.options}
		r.up(v)
		if line := mountLine(t, r.staging(v)); !strings.Contains(line, tc.want) {
			t.Errorf("%q: %s", tc.options, line)
		}
		r.down(v)
	}
	v := vol{id: "options", subDir: "options", options: "vers=4.1", flags: []string{"vers=4.2", "noexec"}}
	r.up(v)
	if line := mountLine(t, r.staging(v)); !strings.Contains(line, "vers=4.2,") || !strings.Contains(line, "noexec") {
		t.Errorf("flags of the PersistentVolume win: %s", line)
	}
	r.down(v)
}

// twoVolumes of one export are two devices: kubelet looks in mountinfo for what else
// has the device and the root of a staged volume, and does not unstage it while there
// is any. NFS says "/" of each root. Two that may be one directory are one device: a pod
// sees at once what the other has written.
func twoVolumes(t *testing.T, r *rig) {
	a := vol{id: "two-a", subDir: "pvc-6e1f2b9c-0d9b-4a2e-8f6e-0123456789ab"}
	b := vol{id: "two-b", subDir: "pvc-7e1f2b9c-0d9b-4a2e-8f6e-0123456789ab"}
	c, d := vol{id: "two-c", subDir: "two"}, vol{id: "two-d", subDir: "two"}
	e := vol{id: "two-e", subDir: b.subDir, options: "sharecache"}
	for _, v := range []vol{a, b, c, d, e} {
		r.up(v)
	}
	all, err := mnt.List()
	r.must(err)
	dev := map[string]uint64{}
	for _, m := range all {
		dev[m.Point] = m.Dev
	}
	if one, two := dev[r.staging(a)], dev[r.staging(b)]; one == 0 || two == 0 || one == two {
		t.Errorf("devices %#x and %#x of two volumes", one, two)
	}
	if one, two := dev[r.staging(c)], dev[r.staging(d)]; one == 0 || one != two {
		t.Errorf("devices %#x and %#x of one directory", one, two)
	}
	if dev[r.staging(a)] != dev[r.target(a, 1)] {
		t.Error("a pod's target is no bind of what is staged")
	}
	if line := mountLine(t, r.staging(e)); strings.Contains(line, "nosharecache") {
		t.Errorf("the volume's own options win: %s", line)
	}
	for _, v := range []vol{a, b, c, d, e} {
		r.down(v)
	}
}

func refusals(t *testing.T, r *rig) {
	for _, tc := range []struct {
		v    vol
		code codes.Code
		say  string
	}{
		{vol{id: "r1", subDir: "r", options: "nconnect=17"}, codes.InvalidArgument, "nconnect"},
		{vol{id: "r2", subDir: "r", options: "vers=5"}, codes.InvalidArgument, "vers"},
		{vol{id: "r3", subDir: "r", options: "addr=10.0.0.1"}, codes.InvalidArgument, "addr"},
		{vol{id: "r4", subDir: "r", flags: []string{"sec=plain"}}, codes.InvalidArgument, "sec"},
		{vol{id: "r5", subDir: "not/there"}, codes.FailedPrecondition, "kernel: NFS4: Couldn't follow remote path"},
		{vol{id: "r6", subDir: "../etc"}, codes.InvalidArgument, "subDir"},
		{vol{id: "r7", subDir: "r", options: "port=1"}, codes.Unavailable, "refused"},
	} {
		err := r.stage(tc.v)
		if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%+v: %v, want %s with %q", tc.v, err, tc.code, tc.say)
		}
		r.must(r.unstage(tc.v))
	}
}

// replaced: an administrator brings a directory back from a backup, under the volume.
func replaced(t *testing.T, r *rig) {
	// Since Linux 7 a client may hold a delegation of the directory, by which server and
	// client go on with the one that was deleted, until it is given back.
	_ = os.WriteFile("/sys/module/nfsv4/parameters/directory_delegations", []byte("N"), 0) // missing before
	v, dir := vol{id: "replaced", subDir: "replaced"}, filepath.Join(export, "replaced")
	r.up(v)
	r.must(os.RemoveAll(dir))
	r.must(os.Mkdir(dir, 0o755))
	r.must(os.WriteFile(filepath.Join(dir, "f"), []byte("restored"), 0o600))
	if ails, err := r.ails(v, 1); err != nil || !strings.Contains(ails, "StaleFileHandle") {
		t.Errorf("health: %q, %v", ails, err)
	}
	r.must(r.publish(v, 2, true))
	for _, pod := range []int{1, 2} {
		if b, err := os.ReadFile(filepath.Join(r.target(v, pod), "f")); err != nil || string(b) != "restored" {
			t.Errorf("pod %d: %q, %v", pod, b, err)
		}
		if ro := strings.Contains(mountLine(t, r.target(v, pod)), " ro,"); ro != (pod == 2) {
			t.Errorf("pod %d: read-only %v", pod, ro)
		}
	}
	if ails, err := r.ails(v, 1); err != nil || ails != "" {
		t.Errorf("healed, and its health is %q, %v", ails, err)
	}
	r.must(r.unpublish(v, 2))
	r.down(v)
}

func unexported(t *testing.T, r *rig) {
	v, other := vol{id: "unexported", subDir: "unexported"}, vol{id: "unexported2", subDir: "unexported"}
	r.up(v)
	r.must(os.WriteFile(filepath.Join(r.target(v, 1), "f"), []byte("kept"), 0o600))
	nfsd(t, "unexport")
	stop := r.watch()
	r.timed("NodeGetVolumeStats, unexported", codes.Unavailable, first, func() error { _, err := r.stats(v, 1); return err })
	start := time.Now()
	if err := r.stage(other); err == nil || time.Since(start) > first {
		t.Errorf("stage of what is not exported: %v after %s", err, time.Since(start))
	} else {
		t.Logf("%v", err)
	}
	for pod := 2; pod < 5; pod++ {
		r.timed("NodePublishVolume, unexported", codes.Unavailable, first, func() error { return r.publish(v, pod, false) })
	}
	r.best("NodeUnpublishVolume, unexported", quick, 3, func(i int) (time.Duration, error) {
		return lasts(func() error { return r.unpublish(v, 2+i) })
	})
	stop()
	nfsd(t, "export")
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := r.stats(v, 1); err == nil {
			break
		} else if time.Since(start) > timeout {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(r.target(v, 1), "f")); err != nil || string(b) != "kept" {
		// kubelet publishes again when the pod is started anew.
		r.must(r.publish(v, 1, false))
		if b, err = os.ReadFile(filepath.Join(r.target(v, 1), "f")); err != nil || string(b) != "kept" {
			t.Errorf("%q, %v", b, err)
		}
	}
	r.must(r.unstage(other))
	r.down(v)
}

func full(t *testing.T, r *rig) {
	v := vol{id: "full", subDir: "full"}
	r.up(v)
	nfsd(t, "fill")
	resp, err := r.stats(v, 1)
	r.must(err)
	for _, u := range resp.GetUsage() {
		if u.GetUnit() == csi.VolumeUsage_BYTES && (u.GetAvailable() > 1<<20 || u.GetUsed() == 0) {
			t.Errorf("full, and the figures are %v", u)
		}
	}
	err = os.WriteFile(filepath.Join(r.target(v, 1), "f"), bytes.Repeat([]byte("x"), 4<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	r.down(v)
	r.up(v)
	r.down(v)
	nfsd(t, "drain")
}

// killed: a driver that is killed and started anew knows what it had, also when the
// server died meanwhile. Nobody has told it that the server is dead: it is started anew
// before each call.
func killed(t *testing.T, r *rig) {
	a := []vol{{id: "killed-0", subDir: "killed-0"}, {id: "killed-1", subDir: "killed-1"}, {id: "killed-2", subDir: "killed-2"}}
	b := vol{id: "killed-b", subDir: "killed-b"}
	for _, v := range append(a, b) {
		r.up(v)
	}
	r.must(r.proc.Kill())
	nfsd(t, "stop")
	after := func(what string, most time.Duration, f func(i int) error) {
		t.Helper()
		r.best(what+" after kill -9", most, len(a), func(i int) (time.Duration, error) {
			r.must(r.proc.Kill())
			r.must(r.proc.Start(t.Context()))
			defer r.watch()()
			return lasts(func() error { return f(i) })
		})
	}
	after("NodeUnpublishVolume", quick, func(i int) error { return r.unpublish(a[i], 1) })
	after("NodeUnstageVolume", quick, func(i int) error { return r.unstage(a[i]) })
	after("NodeStageVolume", quick+first, func(int) error { return r.stage(b) })
	nfsd(t, "start")
	r.down(b)
}

// inline: a pod's volume of its own comes with it, belongs to its group, and goes with it,
// also by another process and after the server was away.
func inline(t *testing.T, outer *rig) {
	state := filepath.Join(outer.disk, "inline")
	r := newRig(t, state, "-share", "main=127.0.0.1:/,vers=4.2", "-init", "-ephemeral", "-mount-group")
	v := vol{id: "csi-0123456789abcdef", group: "4242", mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}
	target := filepath.Join(r.dir, "pod", "mount")
	r.must(os.MkdirAll(filepath.Dir(target), 0o755))
	publish := func() error {
		ctx, cancel := r.ctx()
		defer cancel()
		_, err := r.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: v.id, TargetPath: target, VolumeCapability: v.capability(),
			VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true", "share": "main", "mountPermissions": "0770"},
		})
		return err
	}
	unpublish := func() error {
		ctx, cancel := r.ctx()
		defer cancel()
		_, err := r.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: target})
		return err
	}
	ofPods := func() []string { names, _ := filepath.Glob(filepath.Join(export, "ephemeral-*")); return names }
	for range 2 {
		r.must(publish())
	}
	r.must(os.WriteFile(filepath.Join(target, "f"), []byte("the pod's"), 0o600))
	if got := ofPods(); len(got) != 1 {
		t.Fatalf("%q on the server", got)
	} else if b, err := os.ReadFile(filepath.Join(got[0], "f")); err != nil || string(b) != "the pod's" {
		t.Errorf("%q, %v", b, err)
	} else if st, err := os.Stat(got[0]); err != nil || st.Sys().(*syscall.Stat_t).Gid != 4242 || st.Mode() != os.ModeDir|os.ModeSetgid|0o770 {
		t.Errorf("%+v, %v", st, err)
	}
	r.must(r.proc.Kill())
	nfsd(t, "stop")
	r.must(r.proc.Start(t.Context()))
	r.timed("NodeUnpublishVolume, inline, dead server", codes.Unavailable, quick+first, unpublish)
	if is, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(is), target) {
		t.Error("the pod's mount is not gone")
	}
	nfsd(t, "start")
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if err := unpublish(); err == nil {
			break
		} else if time.Since(start) > timeout {
			t.Fatal(err)
		}
	}
	r.must(unpublish())
	if got := ofPods(); len(got) > 0 {
		t.Errorf("%q is left on the server", got)
	}
}

// nfs3 needs mount.nfs, and rpc.statd on the node, for locks: none is taken here, for that
// would wait 50 s for clients of the server's former life. The controller mounts without.
func nfs3(t *testing.T, r *rig) {
	nfsd(t, "v3")
	v := vol{id: "nfs3", subDir: "nfs3", share: export, options: "vers=3"}
	r.up(v)
	r.must(r.publish(v, 2, true))
	if line := mountLine(t, r.staging(v)); !strings.Contains(line, " nfs ") || !strings.Contains(line, "vers=3,") {
		t.Error(line)
	}
	f, err := os.Create(filepath.Join(r.target(v, 1), "f"))
	r.must(err)
	_, err = f.WriteString("over NFS 3")
	r.must(errors.Join(err, f.Close()))
	if b, err := os.ReadFile(filepath.Join(r.target(v, 2), "f")); err != nil || string(b) != "over NFS 3" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(r.target(v, 2), "g"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to a read-only target: %v", err)
	}
	if _, err := r.stats(v, 1); err != nil {
		t.Error(err)
	}
	if ails, err := r.ails(v, 1); err != nil || ails != "" {
		t.Errorf("%q, %v", ails, err)
	}
	r.must(r.unpublish(v, 2))
	r.down(v)

	c := newRig(t, filepath.Join(r.disk, "nfs3"), "-share", "main=127.0.0.1:"+export+",vers=3", "-init")
	made, attributes := c.create("pv3")
	dir := filepath.Join(c.dir, "pv3")
	c.must(c.bring(made, dir, attributes))
	c.must(os.WriteFile(filepath.Join(dir, "t", "f"), []byte("made"), 0o600))
	if b, err := os.ReadFile(filepath.Join(export, "pv3", "f")); err != nil || string(b) != "made" {
		t.Errorf("%q, %v", b, err)
	}
	c.must(c.fetch(made, dir))
	c.remove(made)
	if _, err := os.Stat(filepath.Join(export, "pv3")); !os.IsNotExist(err) {
		t.Errorf("deleted, and %v", err)
	}
}
