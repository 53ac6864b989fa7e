package blockdev

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// parseGPT reads a partition table header; its place is its own block number.
func parseGPT(b []byte, h *hit) bool {
	n := le32(b[12:])
	h.UUID = guid(b[56:])
	h.check(n >= 92 && n <= 512)
	if h.damaged {
		return true
	}
	sum := crc32.NewIEEE()
	for _, p := range [][]byte{b[:16], make([]byte, 4), b[20:n]} {
		_, _ = sum.Write(p) // never fails
	}
	h.check(sum.Sum32() == le32(b[16:]))
	return true
}

// parseDOS reads a master boot record. Boot sectors of file systems end in the
// same two bytes: the partition entries must make sense.
func parseDOS(b []byte, h *hit) bool {
	used, protective := 0, false
	for i := 446; i < 510; i += 16 {
		e := b[i : i+16]
		if e[0]&0x7f != 0 {
			return false
		}
		switch {
		case e[4] == 0xee:
			h.Type, protective = "gpt", true
		case e[4] != 0 && le32(e[12:]) != 0:
			used++
		case firstNonZero(e) >= 0:
			return false
		}
	}
	if id := le32(b[440:]); id != 0 && h.Type == "dos" {
		h.UUID = fmt.Sprintf("%08x", id)
	}
	// An empty table is what some boot loaders leave in front of a file system. The
	// one that guards a GPT says less than the GPT.
	h.weak = used == 0 || protective
	return true
}

// parseLVM2 reads a physical volume label, in any of the first four sectors.
func parseLVM2(b []byte, h *hit) bool {
	h.check(string(b[24:32]) == "LVM2 001" && le64(b[8:]) == uint64(h.Offset)/512)
	h.check(le32(b[16:]) == lvmSum(b[20:512]))
	if id := text(b[32:64]); len(id) == 32 {
		h.UUID = id[:6] + "-" + id[6:10] + "-" + id[10:14] + "-" + id[14:18] + "-" + id[18:22] + "-" + id[22:26] + "-" + id[26:]
	}
	return true
}

// lvmSum is LVM's checksum: CRC-32 with another start and without the inversion.
func lvmSum(b []byte) uint32 { return ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b) }

// parseLUKS reads the header of version 1 or 2, or the second one of version 2.
func parseLUKS(b []byte, h *hit) bool {
	version := be16(b[6:])
	h.UUID = text(b[168:208])
	h.check(version == 1 || version == 2)
	h.check(version == 1 || be64(b[256:]) == uint64(h.Offset))
	return true
}

// mdPlaces are where version 0.90 and 1.0 superblocks are.
func mdTail090(size int64) []int64 { return []int64{size&^(64<<10-1) - 64<<10} }
func mdTail10(size int64) []int64  { return []int64{(size&^511 - 8<<10) &^ (4<<10 - 1)} }

// parseMD090 is called for both byte orders.
func parseMD090(order binary.ByteOrder) func([]byte, *hit) bool {
	return func(b []byte, h *hit) bool {
		for _, i := range []int{20, 52, 56, 60} {
			h.UUID += fmt.Sprintf("%08x", order.Uint32(b[i:]))
		}
		h.check(order.Uint32(b[4:]) == 0 && order.Uint32(b[8:]) <= 91)
		// The data of the member lies before the superblock.
		h.check(int64(order.Uint32(b[32:]))<<10 <= h.Offset)
		return true
	}
}

// parseMD1 reads a version 1 superblock; it knows where it is.
func parseMD1(b []byte, h *hit) bool {
	h.UUID = uuid(b[16:])
	h.check(le32(b[4:]) == 1 && le64(b[144:]) == uint64(h.Offset)/512)
	roles := int64(le32(b[220:]))
	if n := 256 + 2*roles; n <= int64(len(b)) {
		h.check(le32(b[216:]) == mdSum(b[:n]))
	}
	return true
}

// mdSum adds 32-bit words, the checksum's own left out, and folds the carry.
func mdSum(b []byte) uint32 {
	sum := -uint64(le32(b[216:]))
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(le32(b))
	}
	if len(b) == 2 {
		sum += uint64(le16(b))
	}
	return uint32(sum) + uint32(sum>>32)
}

// parseSwap reads the header that shares the first page with the signature.
func parseSwap(b []byte, h *hit) bool {
	if version := le32(b[1024:]); version == 1 {
		h.UUID = uuid(b[1036:])
	}
	return true
}
