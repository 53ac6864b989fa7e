package blockdev

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

// TestRelate: what sysfs says of two devices.
func TestRelate(t *testing.T) {
	root := t.TempDir()
	dev := func(minor uint32, dir string, attrs map[string]string) {
		for name, v := range attrs {
			p := filepath.Join(root, dir, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(v), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		link(t, filepath.Join(root, "dev/block", fmt.Sprint("8:", minor)), filepath.Join(root, dir))
	}
	dev(0, "sda", map[string]string{"device/wwid": "naa.1"})
	dev(1, "sda/sda1", map[string]string{"partition": "1"})
	dev(2, "sda/sda2", map[string]string{"partition": "2"})
	dev(3, "sdb", map[string]string{"device/wwid": "naa.1"}) // another path
	dev(4, "sdb/sdb1", map[string]string{"partition": "1"})
	dev(5, "sdc", map[string]string{"device/wwid": "naa.2"})
	dev(6, "vda", nil)
	dev(7, "vdb", map[string]string{"serial": "x"})
	dev(8, "vdc", map[string]string{"serial": "y"})
	dev(9, "dm-0", map[string]string{"dm/uuid": "mpath-1"})
	link(t, filepath.Join(root, "dm-0/slaves/sda"), filepath.Join(root, "sda"))
	dev(10, "dm-1", map[string]string{"dm/uuid": "LVM-1"})
	link(t, filepath.Join(root, "dm-1/slaves/sda1"), filepath.Join(root, "sda/sda1"))
	if err := os.Symlink(filepath.Join(root, "sdb"), filepath.Join(root, "dm-0/slaves/sdb")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a, b uint32
		want Relation
	}{
		{0, 0, Same}, {0, 1, Same}, {1, 2, Different}, {0, 3, Same}, {1, 4, Same}, {2, 4, Different}, {0, 4, Same},
		{0, 5, Different}, {1, 5, Different}, {0, 6, Unrelated}, {6, 7, Unrelated}, {7, 8, Different}, {0, 7, Unrelated},
		{9, 0, Same}, {9, 3, Same}, {9, 1, Same}, {9, 5, Unrelated}, {9, 7, Unrelated},
		{10, 1, Same}, {10, 0, Same}, {10, 2, Unrelated}, {10, 9, Different},
	} {
		for _, p := range [][2]uint32{{c.a, c.b}, {c.b, c.a}} {
			d := &Device{path: "/dev/x", num: unix.Mkdev(8, p[0]), sys: root}
			if got, err := d.Relate(unix.Mkdev(8, p[1])); got != c.want || err != nil {
				t.Errorf("%d and %d: %s, %v; want %s", p[0], p[1], got, err, c.want)
			}
		}
	}
	d := &Device{path: "/dev/x", num: unix.Mkdev(8, 0), sys: root}
	if got, err := d.Relate(unix.Mkdev(9, 9)); err == nil {
		t.Errorf("a device that is not there is %s", got)
	}
}

// TestRelateLoops: by the files behind.
func TestRelateLoops(t *testing.T) {
	testenv.Tool(t, "losetup")
	a, _, f := loopDevice(t, 1*mib)
	b, _, _ := loopDevice(t, 1*mib)
	if got, err := a.Relate(b.Num()); got != Different || err != nil {
		t.Errorf("two files: %s, %v", got, err)
	}
	out, err := exec.Command("losetup", "-f", "--show", f.Name()).Output()
	if err != nil {
		t.Fatal(err)
	}
	second := strings.TrimSpace(string(out))
	defer run(t, "losetup", "-d", second)
	c := openDevice(t, second)
	if got, err := a.Relate(c.Num()); got != Same || err != nil {
		t.Errorf("one file: %s, %v", got, err)
	}
}
