package blockdev

import (
	"fmt"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const extMagicOff = 56

// parseExt reads an ext2, 3 or 4 superblock, which is at byte 1024.
func parseExt(b []byte, h *hit) bool {
	const (
		stateValid, stateErrors                                = 1, 2
		compatJournal                                          = 4
		incompatRecover, incompatJournalDev, incompat64        = 4, 8, 0x80
		incompatExt3                                           = 2 | 4 | 0x10
		roCompatExt3                                           = 1 | 2 | 4
		roCompatChecksum, roCompatOrphans                      = 0x400, 0x10000
		offBlocks, offFirst, offLogBlock, offPerGroup          = 4, 0x14, 0x18, 0x20
		offState, offRev, offInodeSize, offCompat, offIncompat = 0x3a, 0x4c, 0x58, 0x5c, 0x60
		offRoCompat, offUUID, offOrphan, offBlocksHi, offSum   = 0x64, 0x68, 0xe8, 0x150, 0x3fc
	)
	logBlock, rev, state := le32(b[offLogBlock:]), le32(b[offRev:]), le16(b[offState:])
	blocks := uint64(le32(b[offBlocks:]))
	var compat, incompat, roCompat uint32
	if rev > 0 { // the fields mean nothing before
		compat, incompat, roCompat = le32(b[offCompat:]), le32(b[offIncompat:]), le32(b[offRoCompat:])
		h.check(powerOf2(uint64(le16(b[offInodeSize:])), 128, 64<<10))
	}
	if incompat&incompat64 != 0 {
		blocks |= uint64(le32(b[offBlocksHi:])) << 32
	}
	switch {
	case incompat&incompatJournalDev != 0:
		h.Type, h.State = "jbd", Foreign
	case incompat&^incompatExt3 != 0 || roCompat&^roCompatExt3 != 0:
		h.Type = "ext4"
	case compat&compatJournal != 0:
		h.Type = "ext3"
	default:
		h.Type = "ext2"
	}
	h.UUID = uuid(b[offUUID:])
	if h.State == Foreign {
		return true // a journal has no inodes
	}
	h.check(logBlock <= 6 && rev <= 1 && blocks > 0 && le32(b) > 0 && le32(b[offFirst:]) <= 1 && le32(b[offPerGroup:]) > 0)
	h.Size = bytesOf(blocks, 1024<<min(logBlock, 6))
	h.Errors = state&stateErrors != 0
	h.Clean = state&stateValid != 0 && incompat&incompatRecover == 0
	h.Journal = compat&compatJournal != 0
	h.Orphans = h.Journal && (le32(b[offOrphan:]) != 0 || roCompat&roCompatOrphans != 0)
	if roCompat&roCompatChecksum != 0 {
		h.check(le32(b[offSum:]) == ^crc32.Checksum(b[:offSum], castagnoli))
	}
	return true
}

// extBackups are where the first backup of the superblock is, at the start of the
// second block group, for blocks of 1, 2 and 4 KiB.
func extBackups(int64) []int64 { return []int64{8*mib + 1*kib, 32 * mib, 128 * mib} }

const (
	xfsBlockSize = 4 * kib
	xfsMostBlock = 1<<28 - 1 // in an allocation group
)

// xfsGroup is where the second of n groups begins, without stripes.
func xfsGroup(size, n int64) int64 {
	return min((size/xfsBlockSize+n-1)/n, xfsMostBlock) * xfsBlockSize
}

// xfsBackups is where the second allocation group begins, if mkfs.xfs had its way.
func xfsBackups(size int64) []int64 { return []int64{xfsGroup(size, 4)} }

// xfsElsewhere is where it begins if mkfs.xfs knew of the disk's stripes, which make
// 8, 16 or 32 groups, each a stripe unit shorter, or of its processors, which make as
// many groups as there are if none is below 4 GiB.
func xfsElsewhere(size int64) []int64 {
	var at []int64
	for n := int64(2); n <= 64; n++ {
		stripes := n == 8 || n == 16 || n == 32
		if !stripes && n > 3 && size/n < 4*gib {
			continue
		}
		at = append(at, xfsGroup(size, n))
		for unit := 64 * kib; stripes && unit <= mib; unit *= 2 {
			down := size / n &^ (unit - 1)
			at = append(at, down, down-unit, down+unit)
		}
	}
	return at
}

// parseXFS reads the superblock of the first allocation group.
func parseXFS(b []byte, h *hit) bool {
	const offSum, incompatNeedsRepair = 224, 1 << 4
	blockSize, agBlocks, agCount := uint64(be32(b[4:])), uint64(be32(b[84:])), uint64(be32(b[88:]))
	blocks, sector := be64(b[8:]), uint64(be16(b[102:]))
	version := be16(b[100:]) & 0xf
	h.UUID = uuid(b[32:])
	h.Size = bytesOf(blocks, blockSize)
	h.InProgress = b[126] == 1
	h.check(powerOf2(blockSize, 512, 64<<10) && powerOf2(sector, 512, 32<<10) &&
		b[120] < 32 && blockSize == 1<<b[120] && b[121] < 32 && sector == 1<<b[121])
	h.check(version >= 4 && version <= 5 && b[126] <= 1)
	h.check(agCount > 0 && agBlocks > 0 && blocks <= agCount*agBlocks && blocks > (agCount-1)*agBlocks && h.Size > 0)
	if version == 5 {
		h.Errors = be32(b[216:])&incompatNeedsRepair != 0
		if sector <= uint64(len(b)) {
			sum := crc32.Update(0, castagnoli, b[:offSum])
			sum = crc32.Update(sum, castagnoli, make([]byte, 4))
			h.check(le32(b[offSum:]) == crc32.Update(sum, castagnoli, b[offSum+4:max(sector, offSum+4)]))
		}
	}
	return true
}

// parseBtrfs reads a superblock or one of its mirrors. Size is that of this
// device, not of the file system, which may have more.
func parseBtrfs(b []byte, h *hit) bool {
	const (
		mirror1, mirror2 = 64 << 20, 256 << 30
		flagError        = 1 << 2
		sumCRC32C        = 0
		offDevTotal      = 201 + 8
		offDevices       = 136
	)
	h.UUID = uuid(b[32:])
	h.Size = bytesOf(le64(b[offDevTotal:]), 1)
	h.weak = h.Offset == mirror1 || h.Offset == mirror2
	h.Errors = le64(b[56:])&flagError != 0 || h.weak
	h.check(b[64] == '_') // "!" until mkfs or a conversion has ended
	h.check(le64(b[48:]) == uint64(h.Offset) && h.Size > 0 && le64(b[offDevices:]) > 0)
	h.check(powerOf2(uint64(le32(b[144:])), 4<<10, 64<<10) && powerOf2(uint64(le32(b[148:])), 4<<10, 64<<10))
	if le16(b[196:]) == sumCRC32C {
		h.check(le32(b) == crc32.Checksum(b[32:4096], castagnoli))
	}
	if n := le64(b[offDevices:]); n > 1 && !h.damaged {
		// Mounting one device mounts them all, whosever they are.
		h.Type, h.State = fmt.Sprintf("btrfs of %d devices", n), Foreign
	}
	return true
}
