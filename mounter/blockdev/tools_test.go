package blockdev

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// probeFile probes an image: what is on it, not how it is read.
func probeFile(t testing.TB, path string) Content {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := probe(context.Background(), f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// image makes a sparse file.
func image(t testing.TB, size int64) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(p, size); err != nil {
		t.Fatal(err)
	}
	return p
}

// feed runs a tool with standard input and gives its output.
func feed(t testing.TB, in, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// made is a format as its own tool writes it; IMG stands for the file.
type made struct {
	name    string
	state   State
	typ     string
	size    int64 // of the image
	in, cmd string
	spans   bool // the file system says that it fills the image
}

var byTools = []made{
	{name: "ext2", state: Filesystem, typ: "ext2", size: 64 << 20, cmd: "mkfs.ext2 -q IMG", spans: true},
	{name: "ext3", state: Filesystem, typ: "ext3", size: 64 << 20, cmd: "mkfs.ext3 -q IMG", spans: true},
	{name: "ext4", state: Filesystem, typ: "ext4", size: 64 << 20, cmd: "mkfs.ext4 -q IMG", spans: true},
	{name: "ext4 small", state: Filesystem, typ: "ext4", size: 200 << 10, cmd: "mkfs.ext4 -q -b 1024 IMG", spans: true},
	{name: "ext journal", state: Foreign, typ: "jbd", size: 64 << 20, cmd: "mke2fs -q -O journal_dev IMG"},
	{name: "xfs", state: Filesystem, typ: "xfs", size: 512 << 20, cmd: "mkfs.xfs -q IMG", spans: true},
	{name: "xfs 4k", state: Filesystem, typ: "xfs", size: 512 << 20, cmd: "mkfs.xfs -q -s size=4096 IMG", spans: true},
	{name: "xfs v4", state: Filesystem, typ: "xfs", size: 512 << 20, cmd: "mkfs.xfs -q -m crc=0 IMG", spans: true},
	{name: "btrfs", state: Filesystem, typ: "btrfs", size: 256 << 20, cmd: "mkfs.btrfs -q IMG", spans: true},
	{name: "btrfs xxhash", state: Filesystem, typ: "btrfs", size: 256 << 20, cmd: "mkfs.btrfs -q --csum xxhash IMG", spans: true},
	{name: "fat12", state: Filesystem, typ: "vfat", size: 2 << 20, cmd: "mkfs.vfat -F12 IMG", spans: true},
	{name: "fat16", state: Filesystem, typ: "vfat", size: 32 << 20, cmd: "mkfs.vfat -F16 IMG", spans: true},
	{name: "fat32", state: Filesystem, typ: "vfat", size: 256 << 20, cmd: "mkfs.vfat -F32 IMG", spans: true},
	{name: "exfat", state: Filesystem, typ: "exfat", size: 64 << 20, cmd: "mkfs.exfat IMG", spans: true},
	{name: "ntfs", state: Filesystem, typ: "ntfs", size: 64 << 20, cmd: "mkfs.ntfs -q -F -f IMG", spans: true},
	{name: "f2fs", state: Filesystem, typ: "f2fs", size: 128 << 20, cmd: "mkfs.f2fs -q IMG", spans: true},
	{name: "nilfs2", state: Filesystem, typ: "nilfs2", size: 256 << 20, cmd: "mkfs.nilfs2 -q -f IMG", spans: true},
	{name: "jfs", state: Filesystem, typ: "jfs", size: 64 << 20, cmd: "mkfs.jfs -q IMG"},
	{name: "reiserfs", state: Filesystem, typ: "reiserfs", size: 64 << 20, in: "y\n", cmd: "mkfs.reiserfs -q -ff IMG", spans: true},
	{name: "ocfs2", state: Filesystem, typ: "ocfs2", size: 256 << 20, in: "y\n", cmd: "mkfs.ocfs2 -q -F -M local --fs-feature-level=max-features IMG", spans: true},
	{name: "gfs2", state: Filesystem, typ: "gfs2", size: 256 << 20, cmd: "mkfs.gfs2 -O -p lock_nolock -j 1 IMG"},
	{name: "minix", state: Filesystem, typ: "minix", size: 8 << 20, cmd: "mkfs.minix IMG"},
	{name: "minix3", state: Filesystem, typ: "minix", size: 8 << 20, cmd: "mkfs.minix -3 IMG"},
	{name: "bfs", state: Filesystem, typ: "bfs", size: 8 << 20, cmd: "mkfs.bfs IMG"},
	{name: "udf 512", state: Filesystem, typ: "udf", size: 64 << 20, cmd: "mkudffs IMG"},
	{name: "udf 4096", state: Filesystem, typ: "udf", size: 64 << 20, cmd: "mkudffs -b 4096 IMG"},
	{name: "squashfs", state: Filesystem, typ: "squashfs", cmd: "mksquashfs SRC IMG -noappend -quiet"},
	{name: "erofs", state: Filesystem, typ: "erofs", cmd: "mkfs.erofs IMG SRC", spans: true},
	{name: "cramfs", state: Filesystem, typ: "cramfs", cmd: "mkfs.cramfs SRC IMG"},
	{name: "iso9660", state: Filesystem, typ: "iso9660", cmd: "genisoimage -quiet -R -o IMG SRC", spans: true},
	{name: "iso and udf", state: Filesystem, typ: "udf", cmd: "genisoimage -quiet -udf -o IMG SRC"},
	{name: "swap", state: Foreign, typ: "swap", size: 8 << 20, cmd: "mkswap -q IMG"},
	{name: "swap 8k", state: Foreign, typ: "swap", size: 8 << 20, cmd: "mkswap -q -p 8192 IMG"},
	{name: "swap 16k", state: Foreign, typ: "swap", size: 8 << 20, cmd: "mkswap -q -p 16384 IMG"},
	{name: "swap 32k", state: Foreign, typ: "swap", size: 8 << 20, cmd: "mkswap -q -p 32768 IMG"},
	{name: "swap 64k", state: Foreign, typ: "swap", size: 8 << 20, cmd: "mkswap -q -p 65536 IMG"},
	{name: "gpt", state: Foreign, typ: "gpt", size: 64 << 20, cmd: "sgdisk -n 1:0:0 IMG"},
	{name: "gpt sfdisk", state: Foreign, typ: "gpt", size: 64 << 20, in: "label: gpt\n,,L\n", cmd: "sfdisk -q IMG"},
	{name: "dos", state: Foreign, typ: "dos", size: 64 << 20, in: ",,L\n", cmd: "sfdisk -q IMG"},
	{name: "dos empty", state: Foreign, typ: "dos", size: 64 << 20, in: "label: dos\n", cmd: "sfdisk -q IMG"},
	{name: "sun", state: Foreign, typ: "sun", size: 64 << 20, in: "label: sun\n", cmd: "sfdisk -q IMG"},
	{name: "sgi", state: Foreign, typ: "sgi", size: 64 << 20, in: "label: sgi\n", cmd: "sfdisk -q IMG"},
	{name: "luks1", state: Foreign, typ: "crypto_LUKS", size: 32 << 20, in: "pw", cmd: "cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 IMG -"},
	{name: "luks2", state: Foreign, typ: "crypto_LUKS", size: 32 << 20, in: "pw", cmd: "cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 IMG -"},
}

// Each format as its own tool writes it, with blkid as a second opinion.
func TestProbeTools(t *testing.T) {
	for _, m := range byTools {
		t.Run(m.name, func(t *testing.T) {
			args := strings.Fields(m.cmd)
			testenv.Tool(t, args[0], "blkid")
			img := image(t, m.size)
			for i, a := range args {
				switch a {
				case "IMG":
					args[i] = img
				case "SRC":
					args[i] = sources(t)
				}
			}
			feed(t, m.in, args[0], args[1:]...)
			checkMade(t, img, m)
		})
	}
}

// sources is a small tree to make images of.
func sources(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func checkMade(t *testing.T, img string, m made) {
	t.Helper()
	c := probeFile(t, img)
	if c.State != m.state || c.Type != m.typ || c.Errors || c.InProgress {
		t.Errorf("%+v, want %v %s", c, m.state, m.typ)
	}
	if (m.state == Filesystem) != c.Clean {
		t.Errorf("clean: %t", c.Clean)
	}
	st, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}
	if m.spans && c.Size != st.Size() {
		t.Errorf("spans %d bytes, want %d", c.Size, st.Size())
	}
	if c.Size > st.Size() {
		t.Errorf("spans %d bytes of %d", c.Size, st.Size())
	}
	blkid := feed(t, "", "blkid", "-p", "-o", "export", img)
	if !strings.Contains(blkid, "TYPE="+m.typ+"\n") {
		t.Errorf("blkid says %s", blkid)
	}
	if c.UUID != "" && !strings.Contains(blkid, "UUID="+c.UUID+"\n") {
		t.Errorf("uuid %s, and blkid says %s", c.UUID, blkid)
	}
}
