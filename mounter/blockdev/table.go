package blockdev

import (
	"encoding/binary"
	"slices"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// signatures is every format that is known. What is not here and not zero is
// Unknown, which is refused too: an entry adds a name, and places in the middle
// of the device that must be read before it may be called blank. Where two
// entries claim one place, the first counts.
var signatures = slices.Concat(fileSystems, otherFileSystems, partitionTables, members, fakeRAID)

// fileSystems are those whose superblock is read in full.
var fileSystems = []signature{
	filesystem("ext4", 1024, extMagicOff, "\x53\xef", parseExt, 1024),
	filesystem("xfs", 32<<10, 0, "XFSB", parseXFS, 0),
	filesystem("btrfs", 4096, 65, "BHRfS_M", parseBtrfs, 64*kib, 64*mib, 256*gib),
	filesystem("exfat", 512, 3, "EXFAT   ", parseExFAT, 0),
	filesystem("ntfs", 512, 3, "NTFS    ", parseNTFS, 0),
	filesystem("vfat", 512, 0x52, "FAT32   ", parseFAT, 0),
	filesystem("vfat", 512, 0x36, "FAT16   ", parseFAT, 0),
	filesystem("vfat", 512, 0x36, "FAT12   ", parseFAT, 0),
	filesystem("vfat", 512, 0x36, "FAT     ", parseFAT, 0),
	filesystem("vfat", 512, 0x52, "MSWIN", parseFAT, 0),
	filesystem("vfat", 512, 0x36, "MSDOS", parseFAT, 0),
	filesystem("f2fs", 1024, 0, "\x10\x20\xf5\xf2", parseF2FS, 1*kib),
	weakly(filesystem("f2fs", 1024, 0, "\x10\x20\xf5\xf2", parseF2FS, 5*kib)),
	filesystem("erofs", 128, 0, "\xe2\xe1\xf5\xe0", parseErofs, 1*kib),
	filesystem("squashfs", 96, 0, "hsqs", parseSquashfs, 0),
	filesystem("squashfs3", 96, 0, "sqsh", nil, 0),
	filesystem("udf", 32<<10, 0, "", parseUDF, 32*kib),
	placed(weakly(filesystem("udf", 16, 0, "", parseAnchor)), udfAnchors),
	filesystem("iso9660", 2048, 1, "CD001", parseISO, 32*kib),
	filesystem("iso9660", 2048, 9, "CDROM", nil, 32*kib),
	filesystem("jfs", 512, 0, "JFS1", parseJFS, 32*kib),
	filesystem("reiserfs", 512, 52, "ReIsEr2Fs", parseReiser, 64*kib),
	filesystem("reiserfs", 512, 52, "ReIsEr3Fs", parseReiser, 64*kib),
	filesystem("reiserfs", 512, 52, "ReIsErFs", parseReiser, 8*kib, 64*kib),
	filesystem("ocfs2", 512, 0, "OCFSV2", parseOCFS2, 1*kib, 2*kib, 4*kib, 8*kib),
	filesystem("gfs2", 512, 0, "\x01\x16\x19\x70", parseGFS, 64*kib),
	filesystem("nilfs2", 1024, 6, "\x34\x34", parseNilfs, 1*kib),
	placed(weakly(filesystem("nilfs2", 1024, 6, "\x34\x34", parseNilfs)),
		func(size int64) []int64 { return []int64{size&^4095 - 4096} }),
	filesystem("bcachefs", 512, 24, bcachefsMagic, uuidAt(56), 4*kib),
	weakly(filesystem("bcachefs", 512, 24, bcachefsMagic, uuidAt(56), 2*mib, -1*mib)),
	backup("ext4", extBackups),
	backup("xfs", xfsBackups),
}

const (
	bcacheMagic   = "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"
	bcachefsMagic = "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"
)

// otherFileSystems are known by name only.
var otherFileSystems = []signature{
	filesystem("apfs", 64, 32, "NXSB", nil, 0),
	filesystem("befs", 64, 32, "BFS1", nil, 0, 512),
	filesystem("befs", 64, 32, "1SFB", nil, 0, 512),
	filesystem("bfs", 64, 0, "\xce\xfa\xad\x1b", nil, 0),
	filesystem("cramfs", 64, 0, "\x45\x3d\xcd\x28", nil, 0),
	filesystem("cramfs", 64, 0, "\x28\xcd\x3d\x45", nil, 0),
	filesystem("exfs", 64, 0, "EXFS", nil, 0),
	filesystem("hfs", 64, 0, "BD", nil, 1*kib),
	filesystem("hfsplus", 64, 0, "H+", nil, 1*kib),
	filesystem("hfsplus", 64, 0, "HX", nil, 1*kib),
	filesystem("hpfs", 64, 0, "\x49\xe8\x95\xf9", nil, 8*kib),
	filesystem("minix", 64, 0, "", parseMinix, 1*kib),
	filesystem("nss", 64, 0, "SPB5", nil, 4*kib),
	filesystem("ocfs", 64, 0, "OracleCFS", nil, 8*kib),
	filesystem("ReFS", 64, 0, "\x00\x00\x00ReFS\x00", nil, 0),
	filesystem("reiser4", 64, 0, "ReIsEr4", nil, 64*kib),
	filesystem("romfs", 64, 0, "-rom1fs-", nil, 0),
	filesystem("scoutfs", 64, 4, "\x8b\x42\x3c\x10", nil, 64*kib),
	filesystem("ubifs", 64, 0, "\x31\x18\x10\x06", nil, 0),
	filesystem("ufs", 1376, 0, "", parseUFS, 0, 8*kib, 64*kib, 256*kib),
	filesystem("VMFS", 64, 0, "\x5e\xf1\xab\x2f", nil, 2*mib),
	filesystem("vxfs", 64, 0, "\xf5\xfc\x01\xa5", nil, 1*kib),
	filesystem("vxfs", 64, 0, "\xa5\x01\xfc\xf5", nil, 8*kib),
	filesystem("zonefs", 64, 0, "SFOZ", nil, 0),
}

// partitionTables: the block size may be that of another machine.
var partitionTables = []signature{
	foreign("gpt", 512, 0, "EFI PART", parseGPT, 512, 1*kib, 2*kib, 4*kib),
	weakly(foreign("gpt", 512, 0, "EFI PART", parseGPT, -512, -1*kib, -2*kib, -4*kib)),
	foreign("dos", 512, 510, "\x55\xaa", parseDOS, 0),
	foreign("sun", 512, 508, "\xda\xbe", parseSun, 0),
	foreign("sgi", 64, 0, "\x0b\xe5\xa9\x41", nil, 0),
	foreign("mac", 4096, 0, "ER", parseMac, 0),
	foreign("bsd", 512, 0, "\x57\x45\x56\x82", parseBSD, 64, 128, 512),
}

const (
	mdMagicLE = "\xfc\x4e\x2b\xa9"
	mdMagicBE = "\xa9\x2b\x4e\xfc"
)

// members are parts of what other drivers of the kernel assemble, or other
// programs own: volume managers, software RAID, encryption, caches, swap.
var members = []signature{
	foreign("LVM2_member", 512, 0, "LABELONE", parseLVM2, 0, 512, 1024, 1536),
	foreign("LVM1_member", 64, 0, "HM", parseLVM1, 0),
	foreign("DM_snapshot_cow", 64, 0, "SnAp", nil, 0),
	foreign("DM_verity_hash", 64, 0, "verity\x00\x00", uuidAt(16), 0),
	foreign("DM_integrity", 64, 0, "integrt\x00", nil, 0),
	foreign("DM_thin_metadata", 64, 32, "\xba\x52\x9c\x01\x00\x00\x00\x00", nil, 0),
	foreign("DM_cache_metadata", 64, 32, "\x03\xc4\x18\x00\x00\x00\x00\x00", nil, 0),
	foreign("vdo", 64, 0, "dmvdo001", uuidAt(40), 0),
	placed(foreign("linux_raid_member", 4096, 0, mdMagicLE, parseMD090(binary.LittleEndian)), mdTail090),
	placed(foreign("linux_raid_member", 4096, 0, mdMagicBE, parseMD090(binary.BigEndian)), mdTail090),
	placed(foreign("linux_raid_member", 4096, 0, mdMagicLE, parseMD1), mdTail10),
	foreign("linux_raid_member", 4096, 0, mdMagicLE, parseMD1, 0, 4*kib),
	foreign("crypto_LUKS", 512, 0, "LUKS\xba\xbe", parseLUKS, 0),
	foreign("crypto_LUKS", 512, 0, "SKUL\xba\xbe", parseLUKS,
		16*kib, 32*kib, 64*kib, 128*kib, 256*kib, 512*kib, 1*mib, 2*mib, 4*mib),
	foreign("BitLocker", 64, 3, "-FVE-FS-", nil, 0),
	placed(foreign("zfs_member", 512, 0, "", parseZFS), zfsLabels),
	placed(foreign("zfs_member", 128<<10, 0, "", parseUberblocks), zfsRing),
	foreign("bcache", 512, 24, bcacheMagic, parseBcache, 4*kib),
	placed(foreign("drbd", 512, 60, "\x83\x74\x02", parseDRBD), drbdTail),
	foreign("drbdmanage_control_volume", 64, 0, "$DRBDmgr=q", nil, 0),
	foreign("drbdproxy_datalog", 64, 0, "DRBDdlh*", nil, 0),
	foreign("ceph_bluestore", 64, 0, "bluestore block device", parseBluestore, 0),
	foreign("stratis", 512, 4, "!Stra0tis\x86\xff\x02^\x41rh", parseStratis, 512, 9*512),
	foreign("oracleasm", 64, 32, "ORCLDISK", nil, 0),
	foreign("mpool", 64, 0, "mpoolDev", nil, 0),
	foreign("ubi", 64, 0, "UBI#", nil, 0),
	foreign("VMFS_volume_member", 64, 0, "\x0d\xd0\x01\xc0", nil, 1*mib),
	swap("SWAPSPACE2", 4*kib), swap("SWAPSPACE2", 8*kib), swap("SWAPSPACE2", 16*kib), swap("SWAPSPACE2", 32*kib), swap("SWAPSPACE2", 64*kib),
	swap("SWAP-SPACE", 4*kib), swap("SWAP-SPACE", 8*kib), swap("SWAP-SPACE", 16*kib), swap("SWAP-SPACE", 32*kib), swap("SWAP-SPACE", 64*kib),
	swap("S1SUSPEND\x00", 4*kib), swap("S2SUSPEND\x00", 4*kib), swap("ULSUSPEND\x00", 4*kib), swap("LINHIB0001", 4*kib),
}

// swap has its signature at the end of the first page.
func swap(magic string, page int64) signature {
	return foreign("swap", int(page), int(page)-10, magic, parseSwap, 0)
}

// fakeRAID is what adapters and BIOSes write, mostly at the end.
var fakeRAID = []signature{
	foreign("ddf_raid_member", 512, 0, "\xde\x11\xde\x11", parseDDF, -512, -257*512),
	foreign("isw_raid_member", 64, 0, "Intel Raid ISM Cfg Sig. ", nil, -1024, -8192),
	foreign("lsi_mega_raid_member", 64, 0, "$XIDE$", nil, -512),
	foreign("nvidia_raid_member", 64, 0, "NVIDIA", nil, -1024),
	foreign("silicon_medley_raid_member", 512, 0x60, "\x00\x00\x00\x2f", parseSilicon, -512),
	foreign("via_raid_member", 64, 0, "\x55\xaa", parseVIA, -512),
	foreign("jmicron_raid_member", 128, 0, "JM", parseJMicron, -512),
	foreign("adaptec_raid_member", 64, 0, "\x37\xfc\x4d\x1e", nil, -512),
	foreign("hpt45x_raid_member", 64, 0, "\xf3\x16\x78\x5a", nil, -11*512),
	foreign("hpt45x_raid_member", 64, 0, "\xfd\x16\x78\x5a", nil, -11*512),
	foreign("hpt37x_raid_member", 64, 32, "\xf0\x16\x78\x5a", nil, 4608),
	foreign("hpt37x_raid_member", 64, 32, "\xfd\x16\x78\x5a", nil, 4608),
	placed(foreign("promise_fasttrack_raid_member", 64, 0, "Promise Technology, Inc.", nil), promiseTail),
}
