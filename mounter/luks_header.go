package mounter

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The binary part of a LUKS2 header (LUKS2 On-Disk Format Specification, 2.1).
const (
	luksMagic1, luksMagic2 = "LUKS\xba\xbe", "SKUL\xba\xbe"
	luksBin                = 4096
	luksMaxHeader          = 4 << 20
)

// luksSecond is where the second header may be: behind the first, whose size is
// one of these.
var luksSecond = []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}

// parseLUKS reads the header of a device. Of the two copies of version 2 the one
// that was written last counts, as for cryptsetup; a copy that is not whole does
// not.
func parseLUKS(r io.ReaderAt, size int64) (LUKSHeader, error) {
	var best LUKSHeader
	var newest uint64
	for i, at := range append([]int64{0}, luksSecond...) {
		if at+luksBin > size {
			break
		}
		magic := luksMagic1
		if i > 0 {
			magic = luksMagic2
		}
		b := make([]byte, luksBin)
		if _, err := r.ReadAt(b, at); err != nil {
			return best, err
		}
		if !strings.HasPrefix(string(b), magic) {
			continue
		}
		if i == 0 && binary.BigEndian.Uint16(b[6:]) == 1 {
			return parseLUKS1(b), nil
		}
		h, seq, err := parseLUKS2(r, b, at, size)
		if err != nil {
			return best, err
		}
		if h.Valid && (!best.Valid || seq > newest) {
			best, newest = h, seq
		}
	}
	return best, nil
}

// parseLUKS1: version 1 has no mark.
func parseLUKS1(b []byte) LUKSHeader {
	const slots, slotAt, slotLen, enabled = 8, 208, 48, 0x00AC71F3
	h := LUKSHeader{Valid: true, Version: 1, UUID: field(b[168:208]), Offset: int64(binary.BigEndian.Uint32(b[104:])) * 512}
	for i := range slots {
		if binary.BigEndian.Uint32(b[slotAt+i*slotLen:]) == enabled {
			h.Slots = append(h.Slots, i)
		}
	}
	return h
}

// parseLUKS2 reads one copy, whose binary part is b.
func parseLUKS2(r io.ReaderAt, b []byte, at, size int64) (LUKSHeader, uint64, error) {
	be := binary.BigEndian
	n := int64(be.Uint64(b[8:]))
	if be.Uint16(b[6:]) != 2 || int64(be.Uint64(b[256:])) != at || n <= luksBin || n > luksMaxHeader || at+n > size || field(b[72:104]) != "sha256" {
		return LUKSHeader{}, 0, nil
	}
	all := make([]byte, n)
	if _, err := r.ReadAt(all, at); err != nil {
		return LUKSHeader{}, 0, err
	}
	sum := bytes.Clone(all[448:512])
	clear(all[448:512])
	if got := sha256.Sum256(all); !bytes.Equal(got[:], sum[:sha256.Size]) {
		return LUKSHeader{}, 0, nil
	}
	h := LUKSHeader{Version: 2, UUID: field(all[168:208]), Mark: field(all[208:256])}
	if h.Mark != LUKSNew && h.Mark != LUKSUsed {
		h.Mark = ""
	}
	if err := h.metadata(bytes.TrimRight(all[luksBin:], "\x00")); err != nil {
		return LUKSHeader{}, 0, fmt.Errorf("metadata at byte %d: %w", at+luksBin, err)
	}
	h.Valid = true
	return h, be.Uint64(all[16:]), nil
}

// metadata reads the JSON part.
func (h *LUKSHeader) metadata(b []byte) error {
	var m struct {
		Keyslots map[string]struct {
			Type string `json:"type"`
		} `json:"keyslots"`
		Segments map[string]struct {
			Type       string `json:"type"`
			Offset     string `json:"offset"`
			Size       string `json:"size"`
			SectorSize int64  `json:"sector_size"`
		} `json:"segments"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Keyslots)) {
		slot, err := strconv.Atoi(name)
		if err != nil {
			return err
		}
		if m.Keyslots[name].Type == "luks2" {
			h.Slots = append(h.Slots, slot)
		}
	}
	slices.Sort(h.Slots)
	seg, ok := m.Segments["0"]
	if !ok || len(m.Segments) != 1 || seg.Type != "crypt" {
		return fmt.Errorf("%d segments of type %q, and one of type crypt is what csikit opens (a reencryption that did not end?)", len(m.Segments), seg.Type)
	}
	h.Sector = seg.SectorSize
	var err error
	if h.Offset, err = strconv.ParseInt(seg.Offset, 10, 64); err != nil {
		return err
	}
	if seg.Size != "dynamic" {
		h.Length, err = strconv.ParseInt(seg.Size, 10, 64)
	}
	return err
}

// field is a string that ends with its field, or before.
func field(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
