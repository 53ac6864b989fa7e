package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// sysDevice is a device 8:16 whose attributes are files.
func sysDevice(t *testing.T, attrs map[string]string) *Device {
	t.Helper()
	root := t.TempDir()
	disk := filepath.Join(root, "devices/pci0/sdb")
	for name, v := range attrs {
		p := filepath.Join(disk, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link(t, filepath.Join(root, "dev/block/8:16"), disk)
	return &Device{path: "/dev/sdb", num: unix.Mkdev(8, 16), sys: root}
}

func link(t *testing.T, name, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

const (
	pg80  = "\x00\x80\x00\x0a  SER-0042"
	naa   = "\x01\x03\x00\x08\x60\x01\x40\x5a\x01\x02\x03\x04"
	port  = "\x01\x13\x00\x08\x50\x00\x00\x00\x00\x00\x00\x01" // of the port: others have it too
	t10   = "\x02\x01\x00\x0cLIO-ORG 0042"
	uuid8 = "\x01\x0a\x00\x12\x10\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
)

func TestVerifySysfs(t *testing.T) {
	pg83 := naa + port + t10 + uuid8
	pg83 = "\x00\x83\x00" + string(rune(len(pg83))) + pg83
	scsi := map[string]string{"device/vpd_pg80": pg80, "device/vpd_pg83": pg83, "device/wwid": "naa.6001405a01020304\n"}
	nvme := map[string]string{"device/serial": "vol0123       \n", "wwid": "uuid.0a1b2c3d-0000-1111-2222-333344445555\n", "nguid": "0A1B2C3D-0000-1111-2222-333344445555"}
	for _, c := range []struct {
		name  string
		attrs map[string]string
		want  backends.Identity
		field string // "": right
	}{
		{"virtio", map[string]string{"serial": "vol-1"}, backends.Identity{Serial: "vol-1"}, ""},
		{"virtio, prefix", map[string]string{"serial": "vol-1"}, backends.Identity{Serial: "vol-10"}, "serial"},
		{"nvme", nvme, backends.Identity{Serial: "vol0123", WWID: "0A1B2C3D-0000-1111-2222-333344445555"}, ""},
		{"nvme nguid", nvme, backends.Identity{WWID: "nguid.0a1b2c3d000011112222333344445555"}, ""},
		{"nvme other", nvme, backends.Identity{Serial: "vol0123", WWID: "0a1b2c3d-0000-1111-2222-333344445556"}, "wwid"},
		{"scsi serial", scsi, backends.Identity{Serial: "SER-0042"}, ""},
		{"scsi wwid", scsi, backends.Identity{WWID: "naa.6001405A01020304"}, ""},
		{"scsi bare", scsi, backends.Identity{WWID: "6001405a01020304"}, ""},
		{"scsi t10", scsi, backends.Identity{WWID: "t10.LIO-ORG 0042"}, ""},
		{"scsi uuid", scsi, backends.Identity{WWID: "01020304-0506-0708-090a-0b0c0d0e0f10"}, ""},
		{"scsi port", scsi, backends.Identity{WWID: "naa.5000000000000001"}, "wwid"},
		{"scsi kind", scsi, backends.Identity{WWID: "eui.6001405a01020304"}, "wwid"},
		{"dm", map[string]string{"dm/uuid": "LVM-abc\n"}, backends.Identity{DMUUID: "LVM-abc"}, ""},
		{"dm other", map[string]string{"dm/uuid": "LVM-abc\n"}, backends.Identity{DMUUID: "LVM-abd"}, "dm uuid"},
		{"no dm", map[string]string{"serial": "x"}, backends.Identity{DMUUID: "LVM-abc"}, "dm uuid"},
		{"nothing", map[string]string{"size": "1"}, backends.Identity{Serial: "x"}, "serial"},
		{"empty", map[string]string{"serial": "\n"}, backends.Identity{Serial: " "}, "serial"},
		{"size alone", map[string]string{"serial": "x"}, backends.Identity{Size: 1}, "identity"},
		{"unverified", map[string]string{"serial": "x"}, backends.Identity{Unverified: "a fake"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := sysDevice(t, c.attrs).Verify(context.Background(), c.want)
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var m *MismatchError
			if !errors.As(err, &m) || m.Field != c.field || m.Device != "/dev/sdb" || m.Got == "" || m.Want == "" {
				t.Fatalf("%v, want field %s", err, c.field)
			}
			mustBeKind(t, err, backends.ErrPrecondition, c.field)
		})
	}
}

// Not known is not right.
func TestVerifyUnreadable(t *testing.T) {
	d := sysDevice(t, map[string]string{"serial/is-a-directory": ""})
	mustBeKind(t, d.Verify(context.Background(), backends.Identity{Serial: "x"}), backends.ErrUnavailable, "/dev/sdb")
	d.num = unix.Mkdev(8, 17) // no such device in sysfs
	mustBeKind(t, d.Verify(context.Background(), backends.Identity{Serial: "x"}), backends.ErrUnavailable)
}

// A partition has the serial of its disk.
func TestVerifyPartition(t *testing.T) {
	d := sysDevice(t, map[string]string{"serial": "vol-1", "sdb1/partition": "1"})
	disk, err := filepath.EvalSymlinks(filepath.Join(d.sys, "dev/block/8:16"))
	if err != nil {
		t.Fatal(err)
	}
	link(t, filepath.Join(d.sys, "dev/block/8:17"), filepath.Join(disk, "sdb1"))
	d.num = unix.Mkdev(8, 17)
	if err := d.Verify(context.Background(), backends.Identity{Serial: "vol-1"}); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyLoop(t *testing.T) {
	d, l, _ := loopDevice(t, 1<<20)
	ctx := context.Background()
	right := backends.Identity{BackingDev: l.Dev, BackingIno: l.Ino, Size: 1 << 20}
	if err := d.Verify(ctx, right); err != nil {
		t.Fatal(err)
	}
	wrong := right
	wrong.BackingIno++
	mustBeKind(t, d.Verify(ctx, wrong), backends.ErrPrecondition, l.Path, "backing file",
		fmt.Sprintf("inode %d on", l.Ino), fmt.Sprintf("inode %d on", l.Ino+1))
	wrong = right
	wrong.BackingDev = unix.Mkdev(259, 70000)
	mustBeKind(t, d.Verify(ctx, wrong), backends.ErrPrecondition, "259:70000")
	wrong = right
	wrong.Size++
	mustBeKind(t, d.Verify(ctx, wrong), backends.ErrPrecondition, "size is 1048576, want 1048577")
	checked := errors.New("checked")
	wrong = right
	wrong.Check = func(_ context.Context, f *os.File) error {
		if f != d.File() {
			t.Error("not the open descriptor")
		}
		return checked
	}
	if err := d.Verify(ctx, wrong); !errors.Is(err, checked) {
		t.Errorf("%v", err)
	}
}

// A loop device on a part of the right file is not the right device.
func TestVerifyLoopOffset(t *testing.T) {
	d, l, _ := loopDevice(t, 1<<20)
	info, err := loopStatus(d.f)
	if err != nil {
		t.Fatal(err)
	}
	info.Offset = 4096
	if err := unix.IoctlLoopSetStatus64(int(d.f.Fd()), info); err != nil {
		t.Fatal(err)
	}
	mustBeKind(t, d.Verify(context.Background(), backends.Identity{BackingDev: l.Dev, BackingIno: l.Ino}), backends.ErrPrecondition, "4096")
	if is, err := LoopIs(l.Path, l.Dev, l.Ino); err != nil || is {
		t.Errorf("LoopIs: %t, %v", is, err)
	}
}

func TestVerifyNotALoop(t *testing.T) {
	testenv.Root(t)
	disks, err := filepath.Glob("/sys/block/[svz]*/dev")
	if err != nil {
		t.Fatal(err)
	}
	var d *Device
	for _, disk := range disks {
		if d, err = Open(context.Background(), "/dev/"+filepath.Base(filepath.Dir(disk)), false); err == nil {
			break
		}
	}
	if d == nil {
		t.Skipf("missing: a disk that is no loop device and can be opened: %v", err)
	}
	defer d.Close() //nolint:errcheck // read only
	err = d.Verify(context.Background(), backends.Identity{BackingDev: 1, BackingIno: 1})
	mustBeKind(t, err, backends.ErrPrecondition, "not a loop device")
}

// stat(2) and LOOP_GET_STATUS64 agree on file systems whose device numbers are
// made up: tmpfs, a subvolume of btrfs, an overlay.
func TestBackingNumbers(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.btrfs", "btrfs")
	dir := t.TempDir()
	under := func(name, source, fstype, data string) string {
		p := filepath.Join(dir, name)
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, p, fstype, 0, data); err != nil {
			t.Skipf("missing: %s: %v", fstype, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(p, 0); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	tmp := under("tmp", "tmpfs", "tmpfs", "size=32m")
	disk, l, _ := loopDevice(t, 256<<20)
	run(t, "mkfs.btrfs", "-q", l.Path)
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	btr := under("btrfs", l.Path, "btrfs", "")
	run(t, "btrfs", "-q", "subvolume", "create", filepath.Join(btr, "sub"))
	for _, d := range []string{"up", "work"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	over := under("over", "overlay", "overlay", "lowerdir="+btr+",upperdir="+tmp+"/up,workdir="+tmp+"/work")
	for _, where := range []string{dir, tmp, btr, filepath.Join(btr, "sub"), over} {
		f, err := os.Create(filepath.Join(where, "img"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		l, err := AttachLoop(context.Background(), f, AttachOptions{DirectIO: true})
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		dev, ino := statOf(t, f)
		if l.Dev != dev || l.Ino != ino {
			t.Errorf("%s: loop %d %d, stat %d %d", where, l.Dev, l.Ino, dev, ino)
		}
		t.Logf("%s: %d:%d, direct I/O %t", strings.TrimPrefix(where, dir), unix.Major(dev), unix.Minor(dev), l.DirectIO)
		if err := DetachLoop(context.Background(), l.Path, dev, ino); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// lo_device is written by huge_encode_dev: the same numbers as unix.Mkdev's for
// every major and minor that Linux has.
func TestDeviceNumbers(t *testing.T) {
	huge := func(major, minor uint64) uint64 { return minor&0xff | major<<8 | minor&^0xff<<12 }
	for _, n := range [][2]uint64{{0, 34}, {7, 0}, {8, 255}, {8, 256}, {259, 70000}, {4095, 1<<20 - 1}} {
		want := unix.Mkdev(uint32(n[0]), uint32(n[1]))
		if got := normal(huge(n[0], n[1])); got != want {
			t.Errorf("%v: %x, want %x", n, got, want)
		}
	}
}
