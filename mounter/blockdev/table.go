package blockdev

import "encoding/binary"

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

const (
	mdMagicLE = "\xfc\x4e\x2b\xa9"
	mdMagicBE = "\xa9\x2b\x4e\xfc"
)

// signatures is every format that is known. What is not here and not zero is
// Unknown, which is refused too; an entry adds a name, and places in the middle
// of the device that must be read before it may be called blank.
var signatures = []signature{
	// File systems that csikit makes.
	filesystem("ext4", 1024, extMagicOff, "\x53\xef", parseExt, 1024),
	filesystem("xfs", 4096, 0, "XFSB", parseXFS, 0),
	filesystem("btrfs", 4096, 65, "BHRfS_M", parseBtrfs, 64*kib, 64*mib, 256*gib),

	// Partition tables. The block size may be that of another machine.
	foreign("gpt", 512, 0, "EFI PART", parseGPT, 512, 1*kib, 2*kib, 4*kib),
	weakly(foreign("gpt", 512, 0, "EFI PART", parseGPT, -512, -1*kib, -2*kib, -4*kib)),
	foreign("dos", 512, 510, "\x55\xaa", parseDOS, 0),

	// Volume managers, RAID, encryption, swap.
	foreign("LVM2_member", 512, 0, "LABELONE", parseLVM2, 0, 512, 1024, 1536),
	placed(foreign("linux_raid_member", 4096, 0, mdMagicLE, parseMD090(binary.LittleEndian)), mdTail090),
	placed(foreign("linux_raid_member", 4096, 0, mdMagicBE, parseMD090(binary.BigEndian)), mdTail090),
	placed(foreign("linux_raid_member", 4096, 0, mdMagicLE, parseMD1), mdTail10),
	foreign("linux_raid_member", 4096, 0, mdMagicLE, parseMD1, 0, 4*kib),
	foreign("crypto_LUKS", 512, 0, "LUKS\xba\xbe", parseLUKS, 0),
	foreign("crypto_LUKS", 512, 0, "SKUL\xba\xbe", parseLUKS,
		16*kib, 32*kib, 64*kib, 128*kib, 256*kib, 512*kib, 1*mib, 2*mib, 4*mib),
	foreign("swap", 4096, 0xff6, "SWAPSPACE2", parseSwap, 0),
	foreign("swap", 8192, 0x1ff6, "SWAPSPACE2", parseSwap, 0),
	foreign("swap", 16384, 0x3ff6, "SWAPSPACE2", parseSwap, 0),
	foreign("swap", 32768, 0x7ff6, "SWAPSPACE2", parseSwap, 0),
	foreign("swap", 65536, 0xfff6, "SWAPSPACE2", parseSwap, 0),
}
