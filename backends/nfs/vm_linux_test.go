package nfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// What follows runs in the VM, with the kernel's own NFS server and client.

const exported = "/srv/export"

// nfsd runs test/vm/nfsd.sh.
func nfsd(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("../../test/vm/nfsd.sh", args...).CombinedOutput(); err != nil {
		t.Fatalf("nfsd.sh %v: %v\n%s", args, err, out)
	}
}

// TestOverNFS is the controller half with a server.
func TestOverNFS(t *testing.T) {
	if !testenv.InVM(t, "1G", "512M") {
		return
	}
	nfsd(t, "setup", "/dev/ubdb", "xfs")
	t.Cleanup(func() { nfsd(t, "end") })
	for _, vers := range []string{"4.2", "4.1"} {
		t.Run("copies "+vers, func(t *testing.T) { remote(t, vers).copies(vers) })
		t.Run("ownership "+vers, func(t *testing.T) { remote(t, vers).ownership() })
	}
	t.Run("server gone", func(t *testing.T) { remote(t, "4.2").serverGone() })
	t.Run("worker's mount", func(t *testing.T) { remote(t, "4.2").workerMount() })
	t.Run("project quota", func(t *testing.T) { projectQuotaOf(t, exported) })
	t.Run("project quota of ext4", func(t *testing.T) {
		dir := t.TempDir()
		for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", "-O", "quota,project", "/dev/ubdc"}, {"mount", "-o", "prjquota", "/dev/ubdc", dir}} {
			if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", argv, err, out)
			}
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		projectQuotaOf(t, dir)
	})
}

// workerMount: nothing that lies on a share is run, or a device, for the controller.
func (f *fixture) workerMount() {
	out, err := exec.Command("pgrep", "-P", fmt.Sprint(os.Getpid()), "-f", workerName).Output()
	f.must(err)
	looked := 0
	for pid := range strings.FieldsSeq(string(out)) {
		b, _ := os.ReadFile("/proc/" + pid + "/mountinfo") // one of them may end meanwhile
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, " nfs4 ") || !strings.Contains(line, " "+workerRoot+" ") {
				continue
			}
			looked++
			for _, o := range []string{"nodev", "nosuid", "noexec"} {
				if !strings.Contains(line, o) {
					f.Errorf("without %s: %s", o, line)
				}
			}
		}
	}
	if looked == 0 {
		f.Error("no worker has a share")
	}
}

// remote is a backend of an export of its own, looked at on the server.
func remote(t *testing.T, vers string) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp(exported, "share") //nolint:usetesting // on the server's disk
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, Options{
		Shares:   []Share{{Name: "share", Server: "127.0.0.1", Export: "/" + filepath.Base(dir), Options: []string{"vers=" + vers}}},
		StateDir: filepath.Join(t.TempDir(), "state"), Init: true,
	})
	f := &fixture{t, b, dir}
	f.must(b.RecoverController(t.Context()))
	if _, err := os.Stat(f.at(".csi-csikit", shareFile)); err != nil {
		t.Fatalf("the share was not prepared: %v", err)
	}
	return f
}

// listing is what find(1) says of a tree.
func listing(t testing.TB, dir string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "find", ".",
		"(", "-type", "d", "-printf", "%P %y %m %U %G %T@\n", ")", "-o", "-printf", "%P %y %m %U %G %s %T@ %n %l\n")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(slices.Sorted(strings.Lines(string(out))), "")
}

func (f *fixture) plant(sub string) {
	f.Helper()
	f.write(sub+"/a/b/file", "content")
	f.write(sub+"/script", "#!/bin/sh\n")
	f.must(os.Chmod(f.at(sub, "script"), 0o755|os.ModeSetuid))
	f.must(os.Link(f.at(sub, "a/b/file"), f.at(sub, "second")))
	f.must(os.Symlink("/etc/passwd", f.at(sub, "link")))
	f.must(unix.Mkfifo(f.at(sub, "fifo"), 0o640))
	f.must(os.Lchown(f.at(sub, "a/b"), 1234, 2345))
	f.must(unix.Setxattr(f.at(sub, "script"), "user.test", []byte("kept"), 0))
	f.must(unix.Setxattr(f.at(sub, "script"), accessACL, readerACL, 0))
	s, err := os.Create(f.at(sub, "sparse"))
	f.must(err)
	f.must(s.Truncate(256 << 20))
	_, err = s.WriteAt(bytes.Repeat([]byte("data"), 1<<18), 100<<20)
	f.must(errors.Join(err, s.Close()))
	for i := range 100 {
		f.write(fmt.Sprintf("%s/many/%d/f", sub, i), fmt.Sprint("many ", i))
	}
	long := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	f.must(os.Chtimes(f.at(sub, "a/b/file"), long, long))
	f.must(os.Chtimes(f.at(sub, "a/b"), long, long))
}

// readerACL is an access list as the kernel has it: rwx for the owner, r-x for the group,
// others, and at most, and r-- for user 4321.
const accessACL = "system.posix_acl_access"

var readerACL = []byte("\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe1\x10\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
	"\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff")

// copies: a snapshot and a clone over NFS are what the volume was.
func (f *fixture) copies(vers string) {
	v := f.create("pv", paramSubDir, "ns/pv")
	f.plant("ns/pv")
	want := listing(f, f.at("ns/pv"))
	s := f.ready(f.snapshot("s", v.ID).ID)
	f.write("ns/pv/a/b/file", "changed")
	f.restore(s, "restored")
	f.holds("restored/a/b/file", "content")
	_, err := f.b.CloneVolume(f.Context(), *v, request("clone"))
	f.must(err)
	f.holds("clone/a/b/file", "changed")
	f.holds("clone/many/99/f", "many 99")
	if got := listing(f, f.at("restored")); got != want {
		f.Errorf("restored:\n%s\nwant:\n%s", got, want)
	}
	for _, sub := range []string{"restored", "clone"} {
		var st unix.Stat_t
		f.must(unix.Stat(f.at(sub, "sparse"), &st))
		if st.Size != 256<<20 || st.Blocks*512 > 16<<20 {
			f.Errorf("%s: the sparse file takes %d bytes", sub, st.Blocks*512)
		}
		list := make([]byte, 200)
		n, err := unix.Getxattr(f.at(sub, "script"), accessACL, list)
		if err != nil || !bytes.Equal(list[:n], readerACL) {
			f.Errorf("%s: access list %x, %v, want %x", sub, list[:max(n, 0)], err, readerACL)
		}
		buf := make([]byte, 10)
		n, err = unix.Getxattr(f.at(sub, "script"), "user.test", buf)
		if vers == "4.2" && (err != nil || string(buf[:n]) != "kept") {
			f.Errorf("%s: attribute %q, %v", sub, buf[:max(n, 0)], err)
		}
	}
	f.must(f.b.DeleteSnapshot(f.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
	vols, _, err := f.b.ListVolumes(f.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 10}})
	if err != nil || len(vols) != 3 {
		f.Errorf("%d volumes are listed, %v", len(vols), err)
	}
	for _, v := range vols {
		f.must(f.delete(v.ID))
	}
	f.noRoot()
	f.litter()
}

// ownership: without renameat2's flags, too, nothing that is there is replaced.
func (f *fixture) ownership() {
	f.must(os.Mkdir(f.at("empty"), 0o710))
	f.write("full/data", "precious")
	f.must(os.Symlink("full", f.at("link")))
	for _, sub := range []string{"empty", "full", "link", "link/x", "full/data/x"} {
		if v, err := f.b.CreateVolume(f.Context(), request("pv", paramSubDir, sub)); err == nil {
			f.Errorf("%s: %+v", sub, v)
		}
	}
	f.holds("full/data", "precious")
	if fi, err := os.Stat(f.at("empty")); err != nil || fi.Mode().Perm() != 0o710 {
		f.Errorf("empty: %v, %v", fi, err)
	}
	v := f.create("pv", paramOnDelete, "archive")
	f.write("pv/data", "kept")
	f.must(f.delete(v.ID))
	f.kind(f.delete(v.ID), backends.ErrNotFound)
	free, err := f.b.Capacity(f.Context(), backends.CapacityRequest{})
	if err != nil || free.Available < 500<<20 || free.Available > 1<<30 {
		f.Errorf("%+v, %v", free, err)
	}
}

// serverGone: every call is answered in bounded time, a copy goes on when the server
// is back, and what was asked meanwhile was not done by half.
func (f *fixture) serverGone() {
	v := f.create("pv")
	for i := range 400 {
		f.write(fmt.Sprintf("pv/%d/f", i), "content")
	}
	snap := make(chan *backends.Snapshot, 1)
	go func() {
		s, err := f.b.CreateSnapshot(f.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
		if err != nil {
			f.kind(err, backends.ErrUnavailable) // the server went before the answer
		}
		snap <- s
	}()
	eventually(f, "the copy has begun", func() bool {
		names, _ := filepath.Glob(f.at(".csi-csikit", dirNew, "s-*", "*"))
		return len(names) > 5
	})
	nfsd(f, "stop")
	s := <-snap
	began := time.Now()
	// What changes something fails at once; what only looks may be answered for a while
	// by what the server has delegated to this client.
	f.kind(f.delete(v.ID), backends.ErrUnavailable)
	_, err := f.b.CreateVolume(f.Context(), request("new"))
	f.kind(err, backends.ErrUnavailable)
	for what, call := range map[string]func() error{
		"Volume": func() error {
			_, err := f.b.Volume(f.Context(), backends.VolumeRequest{ID: v.ID})
			return err
		},
		"ListVolumes": func() error {
			_, _, err := f.b.ListVolumes(f.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 10}})
			return err
		},
		"Capacity": func() error { _, err := f.b.Capacity(f.Context(), backends.CapacityRequest{}); return err },
	} {
		start := time.Now()
		eventually(f, what+" is Unavailable", func() bool { return errors.Is(call(), backends.ErrUnavailable) })
		f.Logf("%s without a server: %v", what, time.Since(start))
	}
	h, err := f.b.VolumeHealth(f.Context(), backends.VolumeRequest{ID: v.ID})
	if err != nil || len(h) != 1 || h[0].Status != backends.HealthInaccessible {
		f.Errorf("health %+v, %v", h, err)
	}
	if took := time.Since(began); took > 2*time.Minute {
		f.Errorf("without a server six calls took %v", took)
	}
	nfsd(f, "start")
	eventually(f, "the server is believed again", func() bool {
		_, err := f.b.Volume(f.Context(), backends.VolumeRequest{ID: v.ID})
		return err == nil
	})
	f.backAgain(s, v.ID)
}

// backAgain: the copy that the server had left alone is ended.
func (f *fixture) backAgain(s *backends.Snapshot, volume string) {
	f.Helper()
	found, err := f.b.FindSnapshot(f.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: volume})
	f.must(err)
	if s == nil {
		s = found
	}
	if now := f.ready(s.ID); !now.Created.Equal(s.Created) {
		f.Errorf("created %v, was %v", now.Created, s.Created)
	}
	f.restore(s, "restored")
	for i := range 400 {
		f.holds(fmt.Sprintf("restored/%d/f", i), "content")
	}
}

// fill writes to a file of the share, by a user: ext4 does not hold root to a quota.
func (f *fixture) fill(p string, mib int) error {
	f.Helper()
	out, err := os.Create(f.at(p))
	f.must(err)
	var says bytes.Buffer
	cmd := exec.CommandContext(f.Context(), "dd", "if=/dev/zero", "bs=1M", fmt.Sprint("count=", mib))
	cmd.Stdout, cmd.Stderr = out, &says
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
	err = cmd.Run()
	f.must(out.Close())
	switch {
	case err == nil:
		return nil
	case strings.Contains(says.String(), "quota exceeded"), strings.Contains(says.String(), "No space left"):
		return syscall.EDQUOT
	}
	return fmt.Errorf("%w: %s", err, says.String())
}

// projectQuotaOf: the file system keeps a volume within its size, and the size can
// grow.
func projectQuotaOf(t *testing.T, on string) {
	dir, err := os.MkdirTemp(on, "local") //nolint:usetesting // on the server's disk
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t, open(t, Options{
		Shares: []Share{{Name: "share", LocalDir: dir}}, StateDir: t.TempDir(), Init: true, Quota: QuotaProject,
	}), dir}
	req := request("pv")
	req.Size = 16 << 20
	v, err := f.b.CreateVolume(t.Context(), req)
	f.must(err)
	if v.Capacity != 16<<20 {
		t.Errorf("capacity %d", v.Capacity)
	}
	if err := f.fill("pv/data", 20); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("20 MiB in 16: %v", err)
	}
	size, err := f.b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 32 << 20})
	if err != nil || size != 32<<20 {
		t.Errorf("%d, %v", size, err)
	}
	f.must(f.fill("pv/data", 20))
	f.must(os.Link(f.at("pv/data"), f.at("pv/second")))
	s := f.ready(f.snapshot("s", v.ID).ID)
	req = request("restored")
	req.Size = 32 << 20
	_, err = f.b.RestoreSnapshot(t.Context(), *s, req)
	f.must(err)
	data, err := os.Stat(f.at("restored/data"))
	f.must(err)
	if second, err := os.Stat(f.at("restored/second")); err != nil || !os.SameFile(data, second) {
		t.Errorf("two names of one file are not in the copy: %v", err)
	}
	if err := f.fill("restored/more", 20); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("20 MiB beside 20 in 32: %v", err)
	}
	f.must(f.delete(v.ID))
	f.projectIsOwn()
	f.must(f.delete(handle{tag: volumeTag, share: f.b.o.Shares[0], key: keyOf("restored")}.String()))
	f.must(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
	f.litter(dirKept)
}

// projectIsOwn: what was archived does not count for the next volume of its name.
func (f *fixture) projectIsOwn() {
	req := request("again", paramOnDelete, onDeleteArchive)
	req.Size = 16 << 20
	for range 2 {
		v, err := f.b.CreateVolume(f.Context(), req)
		f.must(err)
		f.must(f.fill("again/data", 10))
		f.must(f.delete(v.ID))
	}
}
