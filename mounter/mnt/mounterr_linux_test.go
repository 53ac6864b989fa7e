package mnt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

func sh(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

// loopOf is a loop device on a new file with a file system.
func loopOf(t *testing.T, fsType string) (loop, img string) {
	t.Helper()
	testenv.Tool(t, "mkfs."+fsType, "losetup")
	img = filepath.Join(t.TempDir(), "img")
	must(t, os.WriteFile(img, nil, 0o600))
	must(t, os.Truncate(img, 320<<20))
	sh(t, "mkfs."+fsType, "-q", img)
	loop = sh(t, "losetup", "-f", "--show", img)
	t.Cleanup(func() { sh(t, "losetup", "-d", loop) })
	return loop, img
}

// superblocks is where the part of each type lies without which there is no mount.
var superblocks = map[string]int64{"ext2": 1024 + 0x18, "ext3": 1024 + 0x18, "ext4": 1024 + 0x18, "xfs": 100, "btrfs": 65536 + 0x48}

// TestMountSaysWhy: of a bad option the error has what the kernel said about it, and
// where that is not to be had, also of a bad superblock, it says where to look.
func TestMountSaysWhy(t *testing.T) {
	testenv.Root(t)
	for fsType, offset := range superblocks {
		t.Run(fsType, func(t *testing.T) {
			loop, img := loopOf(t, fsType)
			p := mkdir(t, tempDir(t), "p")
			o := mnt.Options{Data: "nosuchoption=3"}
			err := mnt.Mount(loop, fsType, p, o)
			if want := "kernel: " + fsType + ": Unknown parameter 'nosuchoption'"; !errors.Is(err, backends.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			const dmesg = "the kernel's log (dmesg) may say why"
			restore := mountapi.Hide(mountapi.Context)
			err = mnt.Mount(loop, fsType, p, o)
			restore()
			if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), dmesg) {
				t.Errorf("mount(2): %v, want %q", err, dmesg)
			}
			f, err := os.OpenFile(img, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte(strings.Repeat("garbage", 8)), offset)
			must(t, errors.Join(err, f.Close()))
			for _, hide := range []mountapi.Part{mountapi.None, mountapi.Context} {
				restore := mountapi.Hide(hide)
				err := mnt.Mount(loop, fsType, p, mnt.Options{})
				restore()
				if err == nil || !strings.Contains(err.Error(), dmesg) && !strings.Contains(err.Error(), "kernel: "+fsType) {
					t.Errorf("hidden %b, a bad superblock: %v", hide, err)
				}
			}
			if isMount(t, p) {
				t.Error("something is mounted")
			}
		})
	}
	t.Run("no device", func(t *testing.T) {
		p := mkdir(t, tempDir(t), "p")
		for fsType, data := range map[string]string{"tmpfs": "size=x", "fuse": "fd=x", "proc": "nosuchoption"} {
			if err := mnt.Mount("x", fsType, p, mnt.Options{Data: data}); err == nil || !strings.Contains(err.Error(), "kernel: "+fsType) {
				t.Errorf("%s: %v", fsType, err)
			}
		}
	})
}
