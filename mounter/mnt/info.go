package mnt

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Info is one mount, a line of /proc/self/mountinfo with its escapes decoded.
type Info struct {
	ID, Parent int      // ids are used again after an unmount; see [ID]
	Dev        uint64   // as unix.Mkdev makes them; btrfs shows a number that no device has
	Root       string   // what of the file system is mounted; ends in "//deleted" when it is gone
	Point      string   // where, with symbolic links resolved
	Options    []string // of this mount
	Shared     bool     // mounts made below it reach its peers in other namespaces
	FSType     string
	Source     string // as the one who mounted it wrote it
	Super      []string
}

// ReadOnly reports whether this mount, or the whole file system, is read-only.
func (i Info) ReadOnly() bool {
	return slices.Contains(i.Options, "ro") || slices.Contains(i.Super, "ro")
}

// parse reads the text of a mountinfo file. A line that it does not understand
// is an error: to leave one out could hide a mount.
func parse(text []byte) ([]Info, error) {
	list := make([]Info, 0, bytes.Count(text, []byte{'\n'}))
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		if len(line) == 0 {
			continue
		}
		i, err := parseLine(string(line))
		if err != nil {
			return nil, fmt.Errorf("mountinfo: %w: %q", err, line)
		}
		list = append(list, i)
	}
	return list, nil
}

// parseDevice is parse of the lines of one device. The others are not taken apart,
// which is most of the work.
func parseDevice(text []byte, dev uint64) ([]Info, error) {
	var list []Info
	for line := range bytes.Lines(text) {
		if d, ok := lineDev(line); ok && d != dev {
			continue
		}
		more, err := parse(line)
		if err != nil {
			return nil, err
		}
		for _, i := range more {
			if i.Dev == dev {
				list = append(list, i)
			}
		}
	}
	return list, nil
}

// lineDev finds the device number in a line, quickly.
func lineDev(line []byte) (dev uint64, ok bool) {
	for range 2 {
		_, rest, found := bytes.Cut(line, []byte{' '})
		if !found {
			return 0, false
		}
		line = rest
	}
	field, _, _ := bytes.Cut(line, []byte{' '})
	d, err := parseDev(string(field))
	return d, err == nil
}

// parseLine reads
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:2 - ext3 /dev/root rw
//
// Fields are split at single spaces: an empty source makes two in a row.
func parseLine(line string) (Info, error) {
	f := strings.Split(line, " ")
	if len(f) < 7 {
		return Info{}, fmt.Errorf("only %d fields", len(f))
	}
	var i Info
	var err error
	if i.ID, err = strconv.Atoi(f[0]); err != nil {
		return Info{}, fmt.Errorf("id: %w", err)
	}
	if i.Parent, err = strconv.Atoi(f[1]); err != nil {
		return Info{}, fmt.Errorf("parent: %w", err)
	}
	if i.Dev, err = parseDev(f[2]); err != nil {
		return Info{}, err
	}
	i.Root, i.Point, i.Options = unescape(f[3]), unescape(f[4]), splitLoose(f[5])
	rest := f[6:]
	for len(rest) > 0 && rest[0] != "-" {
		i.Shared = i.Shared || strings.HasPrefix(rest[0], "shared:")
		rest = rest[1:]
	}
	if len(rest) < 4 {
		return Info{}, fmt.Errorf("only %d fields after the optional ones", len(rest))
	}
	i.FSType, i.Source = unescape(rest[1]), unescape(rest[2])
	i.Super = splitLoose(strings.Join(rest[3:], " ")) // some file systems print spaces here
	return i, nil
}

func parseDev(s string) (uint64, error) {
	major, minor, ok := strings.Cut(s, ":")
	if !ok {
		return 0, fmt.Errorf("device number %q", s)
	}
	a, err := strconv.ParseUint(major, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("device number: %w", err)
	}
	b, err := strconv.ParseUint(minor, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("device number: %w", err)
	}
	return mkdev(uint32(a), uint32(b)), nil
}

// mkdev is unix.Mkdev of Linux, on every system.
func mkdev(major, minor uint32) uint64 {
	return uint64(major&0xfff)<<8 | uint64(major&^0xfff)<<32 | uint64(minor&0xff) | uint64(minor&^0xff)<<12
}

// splitLoose is split for what the kernel prints, which need not have its quotes
// in pairs.
func splitLoose(s string) []string {
	if words, err := split(s); err == nil {
		return words
	}
	return strings.Split(s, ",")
}

// unescape decodes \ooo, as the kernel writes space, tab, newline, backslash
// and # in names.
func unescape(s string) string {
	first := strings.IndexByte(s, '\\')
	if first < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:first]...)
	for i := first; i < len(s); i++ {
		if c, ok := octal(s[i:]); ok {
			b, i = append(b, c), i+3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' || s[1] > '3' {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s[1:4]) {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n<<3 | int(c-'0')
	}
	return byte(n), true
}
