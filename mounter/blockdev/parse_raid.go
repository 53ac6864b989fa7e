package blockdev

import (
	"fmt"
	"hash/crc32"
)

// parseDDF reads the anchor header of the SNIA format, by checksum.
func parseDDF(b []byte, h *hit) bool {
	h.UUID = text(b[8:32])
	sum := crc32.ChecksumIEEE(b[:4])
	sum = crc32.Update(sum, crc32.IEEETable, []byte{0xff, 0xff, 0xff, 0xff})
	h.check(crc32.Update(sum, crc32.IEEETable, b[8:512]) == be32(b[4:]))
	return true
}

// parseDRBD reads internal metadata (8.3, 8.4 and 9), or external at byte 0.
func parseDRBD(b []byte, h *hit) bool {
	if b[63] < 0x6b || b[63] > 0x6d {
		return false
	}
	if id := be64(b[40:]); id != 0 {
		h.UUID = fmt.Sprintf("%x", id)
	}
	h.check(be32(b[80:]) == 4096)
	return true
}

func drbdTail(size int64) []int64 {
	at := []int64{0, size&^4095 - 4096}
	if size%4096 != 0 {
		at = append(at, size&^1023-4096)
	}
	return at
}

// parseSilicon checks a magic that is three quarters zero.
func parseSilicon(b []byte, _ *hit) bool {
	var sum uint16
	for i := 0; i < 0x13e; i += 2 {
		sum += le16(b[i:])
	}
	return b[0x116] < 8 && -sum == le16(b[0x13e:])
}

// parseVIA checks a magic that a boot sector has at another place.
func parseVIA(b []byte, _ *hit) bool {
	var sum byte
	for _, c := range b[:50] {
		sum += c
	}
	return b[2] <= 2 && sum == b[50]
}

// parseJMicron checks a magic of two letters.
func parseJMicron(b []byte, _ *hit) bool {
	var sum uint16
	for i := 0; i < 128; i += 2 {
		sum += le16(b[i:])
	}
	return b[0x30] <= 5 && sum <= 1
}

// parseLVM1 checks a magic of two letters.
func parseLVM1(b []byte, _ *hit) bool { return le16(b[2:]) == 1 || le16(b[2:]) == 2 }

// parseStratis: one of the two copies of the static header.
func parseStratis(b []byte, h *hit) bool {
	h.UUID = text(b[64:96])
	h.check(crc32.Checksum(b[4:512], castagnoli) == le32(b))
	return true
}

// parseBluestore: the label is text.
func parseBluestore(b []byte, h *hit) bool {
	if b[22] == '\n' {
		h.UUID = text(b[23:59])
	}
	return true
}

// parseBcache: the superblock knows its sector.
func parseBcache(b []byte, h *hit) bool {
	h.UUID = uuid(b[40:])
	h.check(le64(b[8:]) == uint64(h.Offset)/512)
	return true
}

// zfsLabels are the four labels; the last two are aligned to their size.
func zfsLabels(size int64) []int64 {
	const label, nvlist = 256 << 10, 16 << 10
	end := size &^ (label - 1)
	return []int64{nvlist, label + nvlist, end - 2*label + nvlist, end - label + nvlist}
}

// parseZFS reads the start of a label's XDR list of pairs.
func parseZFS(b []byte, _ *hit) bool {
	if b[0] != 1 || b[1] > 1 || b[2] != 0 || b[3] != 0 || be32(b[4:]) != 0 || be32(b[8:]) > 3 {
		return false
	}
	size, name := be32(b[12:]), be32(b[20:])
	if size == 0 || size > 112<<10 || name == 0 || name > 256 {
		return false
	}
	for _, c := range b[24 : 24+min(name, 64)] {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

// zfsRing is where the last label has its uberblocks.
func zfsRing(size int64) []int64 { return []int64{size&^(256<<10-1) - 128<<10} }

// parseUberblocks looks through a ring of them, in either byte order.
func parseUberblocks(b []byte, _ *hit) bool {
	const magic = 0x00bab10c
	for ; len(b) >= 8; b = b[min(1024, len(b)):] {
		if le64(b) == magic || be64(b) == magic {
			return true
		}
	}
	return false
}

// parseSun: all 16-bit words of the label cancel out.
func parseSun(b []byte, _ *hit) bool {
	var sum uint16
	for i := 0; i < 512; i += 2 {
		sum ^= be16(b[i:])
	}
	return sum == 0
}

// parseMac: a driver descriptor, and a partition map entry after it.
func parseMac(b []byte, _ *hit) bool {
	for bs := 512; bs <= 2048; bs *= 2 {
		if id := string(b[bs : bs+2]); id == "PM" || id == "TS" {
			return true
		}
	}
	return false
}

// parseBSD: the magic stands twice.
func parseBSD(b []byte, _ *hit) bool { return le32(b[132:]) == le32(b) }

// promiseTail are sectors from the end.
func promiseTail(size int64) []int64 {
	var at []int64
	for _, s := range []int64{63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087} {
		at = append(at, (size/512-s)*512)
	}
	return at
}
