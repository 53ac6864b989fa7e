package blockdev

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// vpdSerial is the serial number of a SCSI unit serial number page (0x80).
func vpdSerial(page []byte) string {
	if len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	n := min(int(binary.BigEndian.Uint16(page[2:])), len(page)-4)
	return strings.Trim(string(page[4:4+n]), " \x00")
}

// vpdDesignators are the names of the logical unit in a SCSI device
// identification page (0x83), written as sysfs writes wwid. Names of the target
// port and of the target, which other units share, are left out.
func vpdDesignators(page []byte) []string {
	if len(page) < 4 || page[1] != 0x83 {
		return nil
	}
	n := min(int(binary.BigEndian.Uint16(page[2:])), len(page)-4)
	var ids []string
	for d := page[4 : 4+n]; len(d) >= 4; {
		end := 4 + int(d[3])
		if end > len(d) {
			break
		}
		if d[1]&0x30 == 0 { // association: the logical unit
			if id := designator(d[0]&0xf, d[1]&0xf, d[4:end]); id != "" {
				ids = append(ids, id)
			}
		}
		d = d[end:]
	}
	return ids
}

func designator(codeSet, kind byte, b []byte) string {
	if len(b) == 0 {
		return ""
	}
	switch {
	case kind == 1 && codeSet >= 2:
		return "t10." + strings.Trim(string(b), " \x00")
	case kind == 2 && codeSet == 1:
		return "eui." + hex.EncodeToString(b)
	case kind == 3 && codeSet == 1:
		return "naa." + hex.EncodeToString(b)
	case kind == 8 && codeSet == 3:
		return strings.TrimRight(string(b), "\x00 ")
	case kind == 10 && codeSet == 1 && len(b) == 18:
		return "uuid." + hex.EncodeToString(b[2:])
	}
	return ""
}

// sameWWID compares a name that the kernel gave with the wanted one: upper and
// lower case and the dashes of a UUID do not matter, and want may be without the
// prefix that says what sort of name it is.
func sameWWID(got, want string) bool {
	got, want = plainWWID(got), plainWWID(want)
	if got == "" || want == "" {
		return false
	}
	if got == want {
		return true
	}
	for _, p := range []string{"naa.", "eui.", "uuid.", "nguid.", "nvme."} {
		if rest, ok := strings.CutPrefix(got, p); ok && rest == want {
			return true
		}
	}
	return false
}

func plainWWID(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	for _, p := range []string{"uuid.", "nguid."} {
		if strings.HasPrefix(s, p) {
			return strings.ReplaceAll(s, "-", "")
		}
	}
	// A bare UUID; the dashes of a T10 name mean something.
	if len(s) == 36 && strings.Count(s, "-") == 4 {
		return strings.ReplaceAll(s, "-", "")
	}
	return s
}
