package blockdev

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// signature is where a format writes what it is known by.
type signature struct {
	typ   string
	state State
	at    []int64 // from the head; negative: from the end
	// where replaces at for places that depend on the size in another way.
	where    func(size int64) []int64
	span     int // bytes handed to parse; they read as zero behind the end of the device
	magicOff int
	magic    string // "": parse decides alone
	weak     bool
	// parse reads the other fields into h, whose State, Type, Offset and owns are
	// set. false: the magic is too short to count without the rest, and the rest
	// is wrong.
	parse func(b []byte, h *hit) bool
}

// places are the offsets on a device of this size; those whose magic would not
// fit are left out.
func (s *signature) places(size int64) []int64 {
	all := s.at
	if s.where != nil {
		all = s.where(size)
	}
	out := make([]int64, 0, len(all))
	for _, off := range all {
		if off < 0 && s.where == nil {
			off += size
		}
		if off >= 0 && off+int64(max(s.magicOff+len(s.magic), 1)) <= size {
			out = append(out, off)
		}
	}
	return out
}

// filesystem and foreign make table entries.
func filesystem(typ string, span, magicOff int, magic string, parse func([]byte, *hit) bool, at ...int64) signature {
	return signature{typ: typ, state: Filesystem, at: at, span: span, magicOff: magicOff, magic: magic, parse: parse}
}

func foreign(typ string, span, magicOff int, magic string, parse func([]byte, *hit) bool, at ...int64) signature {
	return signature{typ: typ, state: Foreign, at: at, span: span, magicOff: magicOff, magic: magic, parse: parse}
}

// weakly marks an entry as a backup or a trace.
func weakly(s signature) signature {
	s.weak = true
	return s
}

// backup is a place that must read as zero before a device is called blank, and
// names nothing: an mkfs that was cut short leaves a backup too, and a file system
// that lost all else is for its own tools.
func backup(typ string, where func(size int64) []int64) signature {
	never := func([]byte, *hit) bool { return false }
	return placed(filesystem(typ, 512, 0, "", never), where)
}

// placed gives an entry places that depend on the size.
func placed(s signature, where func(size int64) []int64) signature {
	s.where = where
	return s
}

func le16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// bytesOf is blocks*blockSize as a size, 0 when that cannot be one.
func bytesOf(blocks, blockSize uint64) int64 {
	const most = 1<<63 - 1
	if blockSize == 0 || blocks > most/blockSize {
		return 0
	}
	return int64(blocks * blockSize)
}

// powerOf2 reports whether n is one, between lo and hi.
func powerOf2(n, lo, hi uint64) bool { return n >= lo && n <= hi && n&(n-1) == 0 }

// uuid writes 16 bytes in their order; all zero is no UUID.
func uuid(b []byte) string {
	if firstNonZero(b[:16]) < 0 {
		return ""
	}
	s := hex.EncodeToString(b[:16])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// guid writes 16 bytes of Microsoft's mixed order.
func guid(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", le32(b), le16(b[4:]), le16(b[6:]), b[8:10], b[10:16])
}

// text is a UUID kept as text: printable, up to the first NUL.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	for _, r := range s {
		if r < '!' || r > '~' {
			return ""
		}
	}
	return s
}

// check marks the hit as damaged unless ok.
func (h *hit) check(ok bool) {
	if !ok {
		h.damaged = true
	}
}

// uuidAt is for formats of which nothing else is read.
func uuidAt(off int) func([]byte, *hit) bool {
	return func(b []byte, h *hit) bool {
		h.UUID = uuid(b[off:])
		return true
	}
}
