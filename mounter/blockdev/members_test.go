package blockdev

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// md1 is a version 1 superblock of a mirror that is at off.
func md1(_ testing.TB, off int64) []byte {
	b := make([]byte, 4096)
	copy(b, mdMagicLE)
	le := binary.LittleEndian
	le.PutUint32(b[4:], 1)
	copy(b[16:], "0123456789abcdef")
	copy(b[32:], "host:0")
	le.PutUint32(b[72:], 1) // RAID 1
	le.PutUint64(b[80:], 1024)
	le.PutUint32(b[92:], 2)
	le.PutUint64(b[136:], 2048) // data size
	if off == 0 || off == 4096 {
		le.PutUint64(b[128:], 2048) // data offset
	}
	le.PutUint64(b[144:], uint64(off)/512)
	le.PutUint32(b[220:], 2)
	le.PutUint16(b[258:], 1)
	le.PutUint32(b[216:], mdSum(b[:260]))
	return b
}

func TestMD1(t *testing.T) {
	const size = 64<<20 + 1536
	for minor, off := range map[string]int64{"1.0": (size&^511 - 8192) &^ 4095, "1.1": 0, "1.2": 4096} {
		img := image(t, size)
		put(t, img, off, md1(t, off))
		c := probeFile(t, img)
		if c.State != Foreign || c.Type != "linux_raid_member" || c.Offset != off || c.Errors || c.UUID != "30313233-3435-3637-3839-616263646566" {
			t.Errorf("%s: %+v", minor, c)
		}
		t.Run(minor, func(t *testing.T) {
			testenv.Tool(t, "mdadm")
			if out := feed(t, "", "mdadm", "--examine", img); !strings.Contains(out, "Version : "+minor) || !strings.Contains(out, "- correct") {
				t.Errorf("mdadm does not take this for one: %s", out)
			}
		})
		put(t, img, off+32, []byte("x"))
		if c := probeFile(t, img); c.State != Foreign || !c.Errors {
			t.Errorf("%s with a wrong checksum: %+v", minor, c)
		}
	}
}

func TestMD090(t *testing.T) {
	const size = 64<<20 + 3*4096
	off := int64(64<<20 - 64<<10)
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		var b []byte
		for _, v := range []uint32{0xa92b4efc, 0, 90, 0, 0, 0x11111111, 1, 1, 1024, 2, 2, 0, 0, 0x22222222, 0x33333333, 0x44444444} {
			b = order.AppendUint32(b, v)
		}
		img := image(t, size)
		put(t, img, off, b)
		c := probeFile(t, img)
		if c.State != Foreign || c.Type != "linux_raid_member" || c.Offset != off || c.Errors || c.UUID != "11111111222222223333333344444444" {
			t.Errorf("%v: %+v", order, c)
		}
	}
}

// piece is something written at a place.
type piece struct {
	off int64
	b   string
}

func words(order binary.AppendByteOrder, v ...uint32) string {
	var b []byte
	for _, w := range v {
		b = order.AppendUint32(b, w)
	}
	return string(b)
}

func pad(n int, s string) string { return strings.Repeat("\x00", n) + s }

func ddf() string {
	b := []byte(pad(0, "\xde\x11\xde\x11\xff\xff\xff\xffLinux-MD-0123456789abcdef01.02.00"))
	b = append(b, make([]byte, 512-len(b))...)
	binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b))
	return string(b)
}

func silicon() string {
	b := []byte(pad(0x60, "\x00\x00\x00\x2f"))
	b = append(b, make([]byte, 512-len(b))...)
	binary.LittleEndian.PutUint16(b[0x13e:], ^uint16(0x2f00)+1)
	return string(b)
}

func stratis() string {
	b := []byte(pad(4, "!Stra0tis\x86\xff\x02^\x41rh") + pad(12, strings.Repeat("p", 32)+strings.Repeat("d", 32)))
	b = append(b, make([]byte, 512-len(b))...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return string(b)
}

func anchor(block uint32) string {
	b := []byte{2, 0, 3, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(b[12:], block)
	for i, c := range b {
		if i != 4 {
			b[4] += c
		}
	}
	return string(b)
}

const zfsList = "\x01\x01\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x01" + "\x00\x00\x00\x24" + "\x00\x00\x00\x20" + "\x00\x00\x00\x07version\x00"

// Formats whose tools need a kernel driver, a disk of their kind or another
// system, by their documented bytes.
func TestProbeByBytes(t *testing.T) {
	const size = 64 << 20
	be, le := binary.BigEndian, binary.LittleEndian
	for _, c := range []struct {
		typ   string
		piece piece
	}{
		{"ddf_raid_member", piece{size - 512, ddf()}},
		{"ddf_raid_member", piece{size - 257*512, ddf()}},
		{"isw_raid_member", piece{size - 1024, "Intel Raid ISM Cfg Sig. 1.1.00"}},
		{"silicon_medley_raid_member", piece{size - 512, silicon()}},
		{"via_raid_member", piece{size - 512, "\x55\xaa\x01" + pad(47, "\x00")}},
		{"jmicron_raid_member", piece{size - 512, "JM" + pad(2, words(le, 0xffff&^0x4d4a+1))}},
		{"adaptec_raid_member", piece{size - 512, "\x37\xfc\x4d\x1e"}},
		{"hpt37x_raid_member", piece{4608 + 32, "\xf0\x16\x78\x5a"}},
		{"promise_fasttrack_raid_member", piece{size - 3087*512, "Promise Technology, Inc."}},
		{"zfs_member", piece{16 << 10, zfsList}},
		{"zfs_member", piece{272 << 10, zfsList}},
		{"zfs_member", piece{size - 496<<10, zfsList}},
		{"zfs_member", piece{size - 240<<10, zfsList}},
		{"zfs_member", piece{size - 127<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}},
		{"zfs_member", piece{size - 1<<10, words(be, 0, 0x00bab10c)}},
		{"stratis", piece{512, stratis()}},
		{"stratis", piece{9 * 512, stratis()}},
		{"vdo", piece{0, "dmvdo001"}},
		{"ceph_bluestore", piece{0, "bluestore block device\n6f1d4f0c-8f0a-4a2e-9a53-0c1d2e3f4a5b\n"}},
		{"drbd", piece{60, "\x83\x74\x02\x6d" + pad(16, "\x00\x00\x10\x00")}},
		{"LVM1_member", piece{0, "HM\x01\x00"}},
		{"DM_thin_metadata", piece{32, words(le, 27022010, 0)}},
		{"bcachefs", piece{4096 + 24, bcachefsMagic + "0123456789abcdef0123456789abcdef"}},
		{"bcachefs", piece{2<<20 + 24, bcachefsMagic}},
		{"bcachefs", piece{size - 1<<20 + 24, bcachefsMagic}},
		{"f2fs", piece{5 << 10, "\x10\x20\xf5\xf2" + pad(12, words(le, 12)) + pad(16, words(le, 100, 0))}},
		{"gfs", piece{64 << 10, words(be, 0x01161970, 1, 0, 0, 0, 0, 1309)}},
		{"ufs", piece{256<<10 + 1372, words(le, 0x19540119)}},
		{"ufs", piece{8<<10 + 1372, words(be, 0x00011954)}},
		{"udf", piece{256 * 512, anchor(256)}},
		{"udf", piece{256 * 4096, anchor(256)}},
		{"udf", piece{size - 2048, anchor(size/2048 - 1)}},
		{"udf", piece{size - 257*2048, anchor(size/2048 - 257)}},
		{"mac", piece{0, "ER" + pad(510, "PM")}},
		{"bsd", piece{512, "WEV\x82" + pad(128, "WEV\x82")}},
		{"swap", piece{4086, "SWAP-SPACE"}},
		{"swap", piece{4086, "S1SUSPEND\x00"}},
		{"BitLocker", piece{0, "\xeb\x58\x90-FVE-FS-"}},
		{"squashfs3", piece{0, "sqsh"}},
		{"reiserfs", piece{8<<10 + 52, "ReIsErFs"}},
	} {
		t.Run(fmt.Sprintf("%s at %d", c.typ, c.piece.off), func(t *testing.T) {
			img := image(t, size)
			put(t, img, c.piece.off, []byte(c.piece.b))
			if got := probeFile(t, img); got.Type != c.typ || got.State != Foreign && got.State != Filesystem {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Every magic of the table, at each of its places, on an otherwise blank disk of
// a size that nothing is aligned to: never blank, and named if its magic alone
// is enough.
func TestEveryMagic(t *testing.T) {
	const size = 300<<20 + 7*512
	for i := range signatures {
		s := &signatures[i]
		if s.magic == "" {
			continue
		}
		for _, off := range s.places(size) {
			d := &sparse{size: size, off: off + int64(s.magicOff), data: []byte(s.magic)}
			c, err := probe(t.Context(), d, size)
			if err != nil {
				t.Fatal(err)
			}
			if c.State == Blank || s.parse == nil && (c.State != s.state || c.Type != s.typ) {
				t.Errorf("%s at %d: %v", s.typ, off, c)
			}
		}
	}
}

// Every place of the table is in what is read.
func TestPlanHoldsTheTable(t *testing.T) {
	for _, size := range []int64{1, 511, 512, 4096, 5000, 65536, 262144, 262145, 1 << 20, 64<<20 + 512, 64<<20 + 200<<10, 257 << 30, 1 << 50} {
		places := plan(size)
		inPlan := func(off int64) bool {
			for _, p := range places {
				if p.holds(off) {
					return true
				}
			}
			return false
		}
		for i := range signatures {
			s := &signatures[i]
			for _, off := range s.places(size) {
				if !inPlan(off) || !inPlan(min(off+int64(s.span), size)-1) {
					t.Errorf("%s at %d of %d is not read", s.typ, off, size)
				}
			}
		}
		for i, p := range places {
			if p.lo >= p.hi || p.lo%pageSize != 0 || p.hi > size || i > 0 && p.lo <= places[i-1].hi {
				t.Errorf("%d: %v", size, places)
				break
			}
		}
		for off := int64(0); off < min(edge, size); off += 512 {
			if !inPlan(off) || !inPlan(size-1-off) {
				t.Errorf("%d: the edges are not in %v", size, places)
				break
			}
		}
	}
}
