package blockdev

import (
	"fmt"
	"hash/crc32"
	"slices"
)

// parseFAT reads the boot sector of FAT12, FAT16 or FAT32.
func parseFAT(b []byte, h *hit) bool {
	serial, state := 39, 37
	if le16(b[22:]) == 0 { // FAT32 has its length of the table elsewhere
		serial, state = 67, 65
	}
	if id := le32(b[serial:]); id != 0 {
		h.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
	}
	sectors := uint64(le16(b[19:]))
	if sectors == 0 {
		sectors = uint64(le32(b[32:]))
	}
	h.Size = bytesOf(sectors, uint64(le16(b[11:])))
	h.Clean, h.Errors = b[state]&3 == 0, b[state]&2 != 0
	h.check(powerOf2(uint64(le16(b[11:])), 512, 4096) && powerOf2(uint64(b[13]), 1, 128))
	h.check(le16(b[14:]) > 0 && b[16] > 0 && b[21] >= 0xf0 && h.Size > 0)
	return true
}

// parseExFAT reads the main boot sector.
func parseExFAT(b []byte, h *hit) bool {
	const dirty, mediaFailure = 2, 4
	flags := le16(b[106:])
	if id := le32(b[100:]); id != 0 {
		h.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
	}
	h.Size = bytesOf(le64(b[72:]), 1<<min(b[108], 12))
	h.Clean, h.Errors = flags&dirty == 0, flags&mediaFailure != 0
	h.check(b[108] >= 9 && b[108] <= 12 && h.Size > 0 && firstNonZero(b[11:64]) < 0)
	return true
}

// parseNTFS reads the boot sector. Whether the volume is dirty is not in it.
func parseNTFS(b []byte, h *hit) bool {
	if id := le64(b[72:]); id != 0 {
		h.UUID = fmt.Sprintf("%016X", id)
	}
	// The copy of the boot sector behind the volume is not counted there.
	h.Size = bytesOf(le64(b[40:])+1, uint64(le16(b[11:])))
	h.check(powerOf2(uint64(le16(b[11:])), 256, 4096) && b[13] != 0 && le64(b[40:]) > 0 && h.Size > 0)
	return true
}

// parseF2FS reads the first superblock or, weakly, the second.
func parseF2FS(b []byte, h *hit) bool {
	logBlock := le32(b[16:])
	h.UUID = uuid(b[108:])
	h.Size = bytesOf(le64(b[36:]), 1<<min(logBlock, 16))
	h.check(logBlock >= 12 && logBlock <= 16 && h.Size > 0)
	return true
}

// parseNilfs reads a superblock; its magic has two bytes, its checksum decides.
func parseNilfs(b []byte, h *hit) bool {
	const valid, failed = 1, 2
	n := int(le16(b[8:]))
	if n < 160 || n > len(b) {
		return false
	}
	sum := crc32.Update(^le32(b[12:]), crc32.IEEETable, b[:16])
	sum = crc32.Update(sum, crc32.IEEETable, make([]byte, 4))
	if ^crc32.Update(sum, crc32.IEEETable, b[20:n]) != le32(b[16:]) {
		return false
	}
	state := le16(b[116:])
	h.UUID = uuid(b[152:])
	h.Size = bytesOf(le64(b[32:]), 1)
	h.Clean, h.Errors = state&valid != 0, state&failed != 0
	return true
}

// parseErofs reads the superblock of the read-only file system.
func parseErofs(b []byte, h *hit) bool {
	h.UUID = uuid(b[48:])
	h.Size = bytesOf(uint64(le32(b[36:])), 1<<min(b[12], 16))
	h.check(b[12] >= 9 && b[12] <= 16)
	return true
}

// parseSquashfs reads version 4; the older ones are named and no more.
func parseSquashfs(b []byte, h *hit) bool {
	if le16(b[28:]) == 4 {
		h.Size = bytesOf(le64(b[40:]), 1)
		h.check(h.Size > 0 && powerOf2(uint64(le32(b[12:])), 4<<10, 1<<20))
	}
	return true
}

// parseReiser reads version 3, old and new.
func parseReiser(b []byte, h *hit) bool {
	h.UUID = uuid(b[84:])
	h.Size = bytesOf(uint64(le32(b)), uint64(le16(b[44:])))
	h.Clean, h.Errors = le16(b[50:]) == 1, false
	h.check(powerOf2(uint64(le16(b[44:])), 512, 64<<10) && h.Size > 0)
	return true
}

// parseJFS names it. Its size leaves out the log at the end, so none is given.
func parseJFS(b []byte, h *hit) bool {
	h.UUID = uuid(b[136:])
	h.check(powerOf2(uint64(le32(b[16:])), 512, 4096) && le64(b[8:]) > 0)
	return true
}

// parseOCFS2 reads block 2, whatever the size of a block is.
func parseOCFS2(b []byte, h *hit) bool {
	blockBits, clusterBits := le32(b[248:]), le32(b[252:])
	h.UUID = uuid(b[336:])
	h.check(blockBits >= 9 && blockBits <= 12 && h.Offset == 2<<min(blockBits, 12))
	h.check(clusterBits >= 12 && clusterBits <= 20)
	h.Size = bytesOf(uint64(le32(b[20:])), 1<<min(clusterBits, 20))
	return true
}

// parseGFS reads the superblock of version 1 or 2, which has no size.
func parseGFS(b []byte, h *hit) bool {
	switch format := be32(b[24:]); {
	case format >= 1800 && format < 1900:
		h.Type, h.UUID = "gfs2", uuid(b[256:])
	default:
		h.Type = "gfs"
		h.check(format == 1309)
	}
	h.check(be32(b[4:]) == 1)
	return true
}

// parseISO reads the primary volume descriptor.
func parseISO(b []byte, h *hit) bool {
	h.Size = bytesOf(uint64(le32(b[80:])), uint64(le16(b[128:])))
	h.check(b[0] <= 3)
	return true
}

// parseUDF looks for an NSR descriptor in the volume recognition sequence.
func parseUDF(b []byte, _ *hit) bool {
	if !slices.Contains([]string{"BEA01", "BOOT2", "CD001", "CDW02", "NSR02", "NSR03"}, string(b[1:6])) {
		return false
	}
	for ; len(b) >= 6; b = b[min(2048, len(b)):] {
		if id := string(b[1:6]); id == "NSR02" || id == "NSR03" {
			return true
		}
	}
	return false
}

// udfAnchors are block 256, the last block, and 256 before that.
func udfAnchors(size int64) []int64 {
	var at []int64
	for bs := int64(512); bs <= 4096; bs *= 2 {
		last := size/bs - 1
		at = append(at, 256*bs, last*bs, (last-256)*bs)
	}
	return at
}

// parseAnchor reads an anchor volume descriptor pointer: a tag with a checksum of
// eight bits and its own block number.
func parseAnchor(b []byte, h *hit) bool {
	var sum byte
	for i, c := range b[:16] {
		if i != 4 {
			sum += c
		}
	}
	block := int64(le32(b[12:]))
	if le16(b) != 2 || b[4] != sum || block == 0 {
		return false
	}
	bs := h.Offset / block
	return bs*block == h.Offset && powerOf2(uint64(bs), 512, 4096)
}

// parseUFS looks at both byte orders of the six magics.
func parseUFS(b []byte, _ *hit) bool {
	for _, m := range []uint32{0x00011954, 0x19540119, 0x00195612, 0x00095014, 0x00612195, 0x05231994} {
		if le32(b[1372:]) == m || be32(b[1372:]) == m {
			return true
		}
	}
	return false
}

// parseMinix knows the versions by their magic, of two bytes.
func parseMinix(b []byte, _ *hit) bool {
	for _, get := range []func([]byte) uint16{le16, be16} {
		switch get(b[16:]) {
		case 0x137f, 0x138f, 0x2468, 0x2478:
			// Inodes, and state: clean, error or neither.
			return get(b) > 0 && get(b[18:]) <= 3
		}
		if get(b[24:]) == 0x4d5a {
			bs := get(b[28:])
			return powerOf2(uint64(bs), 1024, 4096)
		}
	}
	return false
}
