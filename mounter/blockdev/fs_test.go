package blockdev

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// put writes into an image.
func put(t testing.TB, img string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // WriteAt reports
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func zero(t testing.TB, img string, off, n int64) {
	t.Helper()
	put(t, img, off, make([]byte, n))
}

// ext4Image is a small ext4 in an image that may be longer.
func ext4Image(t testing.TB, size, fsSize int64) string {
	t.Helper()
	testenv.Tool(t, "mkfs.ext4")
	img := image(t, fsSize)
	feed(t, "", "mkfs.ext4", "-q", "-b", "4096", img)
	if err := os.Truncate(img, size); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestExtStates(t *testing.T) {
	testenv.Tool(t, "debugfs")
	for ask, want := range map[string]Content{
		"ssv state 0":             {},
		"ssv state 3":             {Errors: true},
		"feature needs_recovery":  {},
		"ssv state 1":             {Clean: true},
		"feature -metadata_csum":  {Clean: true},
		"ssv blocks_count 0":      {Errors: true},
		"ssv blocks_count 999999": {Errors: true}, // more than the device
	} {
		img := ext4Image(t, 32<<20, 32<<20)
		feed(t, "", "debugfs", "-w", "-R", ask, img)
		c := probeFile(t, img)
		if c.State != Filesystem || c.Type != "ext4" || c.Clean != want.Clean || c.Errors != want.Errors {
			t.Errorf("%s: %+v", ask, c)
		}
	}
}

// One wrong bit makes it damaged, and never blank or unknown.
func TestExtChecksum(t *testing.T) {
	img := ext4Image(t, 32<<20, 32<<20)
	put(t, img, 1024+0x88, []byte("/elsewhere"))
	if c := probeFile(t, img); c.State != Filesystem || !c.Errors || c.Clean {
		t.Errorf("%+v", c)
	}
}

func TestExt64Bit(t *testing.T) {
	img := ext4Image(t, 32<<20, 32<<20)
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	sb := b[1024:2048]
	binary.LittleEndian.PutUint32(sb[0x150:], 1) // 2^32 blocks more
	binary.LittleEndian.PutUint32(sb[0x3fc:], ^crc32.Checksum(sb[:0x3fc], castagnoli))
	h := hit{Content: Content{State: Filesystem}}
	if !parseExt(sb, &h) || h.damaged || h.Size != 16<<40+32<<20 {
		t.Errorf("%+v", h)
	}
}

func TestFileSystemShorterThanDevice(t *testing.T) {
	if c := probeFile(t, ext4Image(t, 64<<20, 32<<20)); c.Size != 32<<20 || !c.Clean || c.Errors {
		t.Errorf("%+v", c)
	}
}

func xfsImage(t testing.TB) string {
	t.Helper()
	testenv.Tool(t, "mkfs.xfs", "xfs_db")
	img := image(t, 320<<20)
	feed(t, "", "mkfs.xfs", "-q", img)
	return img
}

func TestXFSInProgress(t *testing.T) {
	img := xfsImage(t)
	feed(t, "", "xfs_db", "-x", "-c", "sb 0", "-c", "write inprogress 1", img)
	c := probeFile(t, img)
	if c.State != Filesystem || c.Type != "xfs" || !c.InProgress || c.Clean || c.Errors {
		t.Errorf("%+v", c)
	}
	// In progress is a licence to format: a damaged superblock does not give it.
	put(t, img, 108, []byte{0xff})
	c = probeFile(t, img)
	if c.State != Filesystem || c.InProgress || !c.Errors {
		t.Errorf("damaged: %+v", c)
	}
}

func TestXFSNeedsRepair(t *testing.T) {
	img := xfsImage(t)
	b := make([]byte, 512)
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	b[219] |= 1 << 4
	binary.LittleEndian.PutUint32(b[224:], 0)
	binary.LittleEndian.PutUint32(b[224:], crc32.Checksum(b, castagnoli))
	put(t, img, 0, b)
	if c := probeFile(t, img); c.State != Filesystem || !c.Errors || c.Clean {
		t.Errorf("%+v", c)
	}
}

func TestBtrfsMirror(t *testing.T) {
	testenv.Tool(t, "mkfs.btrfs")
	img := image(t, 256<<20)
	feed(t, "", "mkfs.btrfs", "-q", img)
	uuid := probeFile(t, img).UUID
	// mkfs and conversions end by making the first byte of the magic a "_".
	put(t, img, 64<<10+64, []byte("!"))
	if c := probeFile(t, img); c.State != Filesystem || c.Type != "btrfs" || c.Offset != 64<<20 && c.Offset != 64<<10 || !c.Errors {
		t.Errorf("unfinished: %+v", c)
	}
	zero(t, img, 0, 1<<20)
	if c := probeFile(t, img); c.Type != "btrfs" || c.Offset != 64<<20 || c.UUID != uuid || c.Clean {
		t.Errorf("mirror: %+v", c)
	}
}

// What lies inside a whole file system is its content, whatever it looks like.
func TestContentOfFilesIsNoSignature(t *testing.T) {
	testenv.Tool(t, "sgdisk", "mkfs.btrfs")
	const size = 256 << 20
	img := image(t, size)
	feed(t, "", "sgdisk", "-n", "1:0:0", img)
	feed(t, "", "mkfs.ext4", "-q", "-F", img) // leaves the backup GPT
	other := image(t, size)
	feed(t, "", "mkfs.btrfs", "-q", other)
	b, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	put(t, img, 64<<20, b[64<<20:64<<20+4096])
	put(t, img, size-8<<10, md1(t, size-8<<10))
	if c := probeFile(t, img); c.State != Filesystem || c.Type != "ext4" || c.Errors {
		t.Errorf("%+v", c)
	}
}

// A RAID superblock behind the end of the file system is of a mirror: mounting
// one half would tear it apart.
func TestRAIDBehindFileSystem(t *testing.T) {
	const size = 64 << 20
	img := ext4Image(t, size, size-1<<20)
	put(t, img, size-8<<10, md1(t, size-8<<10))
	c := probeFile(t, img)
	if c.State != Foreign || c.Type != "linux_raid_member" || c.Offset != size-8<<10 {
		t.Errorf("%+v", c)
	}
}

// A device that grew over the remains of another: the backup GPT of somebody's
// is no reason to refuse a file system that is whole.
func TestBackupBehindFileSystem(t *testing.T) {
	testenv.Tool(t, "sgdisk")
	const size = 64 << 20
	img := image(t, size)
	feed(t, "", "sgdisk", "-n", "1:0:0", img)
	small := ext4Image(t, 32<<20, 32<<20)
	b, err := os.ReadFile(small)
	if err != nil {
		t.Fatal(err)
	}
	put(t, img, 0, b)
	if c := probeFile(t, img); c.State != Filesystem || c.Type != "ext4" || c.Size != 32<<20 {
		t.Errorf("%+v", c)
	}
}

// A partition table in front of a file system: neither is to be touched.
func TestPartitionTableBeforeFileSystem(t *testing.T) {
	testenv.Tool(t, "sfdisk")
	img := ext4Image(t, 32<<20, 32<<20)
	feed(t, "label: dos\n2048,,L\n", "sfdisk", "-q", "--wipe=never", "--force", img)
	if c := probeFile(t, img); c.State != Foreign || c.Type != "dos" {
		t.Errorf("%+v", c)
	}
}

func TestTwoFileSystems(t *testing.T) {
	testenv.Tool(t, "mkfs.btrfs")
	img := image(t, 256<<20)
	feed(t, "", "mkfs.btrfs", "-q", img)
	small := ext4Image(t, 2<<20, 2<<20)
	b, err := os.ReadFile(small)
	if err != nil {
		t.Fatal(err)
	}
	put(t, img, 1024, b[1024:2048]) // of 2 MiB: it owns the place of the btrfs
	if c := probeFile(t, img); c.State != Filesystem || c.Type != "ext4" {
		t.Errorf("one inside the other: %+v", c)
	}
	sb := bytes.Clone(b[1024:2048])
	binary.LittleEndian.PutUint32(sb[4:], 8) // 32 KiB
	binary.LittleEndian.PutUint32(sb[0x3fc:], ^crc32.Checksum(sb[:0x3fc], castagnoli))
	put(t, img, 1024, sb)
	if c := probeFile(t, img); c.State != Foreign || !strings.Contains(c.Type, "ext4 and btrfs") {
		t.Errorf("side by side: %+v", c)
	}
}

func TestLUKSSecondHeader(t *testing.T) {
	testenv.Tool(t, "cryptsetup")
	img := image(t, 32<<20)
	feed(t, "pw", "cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", img, "-")
	first := probeFile(t, img)
	zero(t, img, 0, 4096)
	c := probeFile(t, img)
	if c.State != Foreign || c.Type != "crypto_LUKS" || c.Offset != 16<<10 || c.UUID != first.UUID {
		t.Errorf("%+v", c)
	}
}
