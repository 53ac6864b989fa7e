package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strconv"

	"github.com/csikit/csikit/backends"
)

// mappings are ranges of chunks, as thin_dump and thin_delta tell them, in ascending
// order: for each, how far it is from the end of the one before, and its length. A pool
// may have millions of them.
type mappings struct {
	chunk int64 // bytes
	list  []byte
	end   uint64
	last  uint64 // where the last range begins; neighbours are one
	open  bool
}

var (
	mappingLine = regexp.MustCompile(`^<(/?)([a-z_]+)([^<>]*?)(/?)>$`)
	attributeOf = regexp.MustCompile(` ([a-z_]+)="([^"]*)"`)
)

// decodeMappings reads the XML of the two tools, an element a line. What is not known
// is an error, and what is not whole: to leave something out would lose it in a backup.
func decodeMappings(out []byte) (*mappings, error) {
	m := &mappings{}
	whole := false
	for line := range bytes.Lines(out) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		f := mappingLine.FindSubmatch(line)
		if f == nil || whole {
			return nil, fmt.Errorf("line %q", line)
		}
		if len(f[1]) > 0 {
			whole = string(f[2]) == "superblock"
			continue
		}
		attrs := map[string]uint64{}
		for _, a := range attributeOf.FindAllSubmatch(f[3], -1) {
			if n, err := strconv.ParseUint(string(a[2]), 10, 63); err == nil {
				attrs[string(a[1])] = n
			}
		}
		if err := m.element(string(f[2]), attrs); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
	}
	if !whole || m.chunk == 0 {
		return nil, errors.New("the list ends too early")
	}
	m.flush()
	return m, nil
}

func (m *mappings) element(name string, attrs map[string]uint64) error {
	begin, length := "", ""
	switch name {
	case "superblock":
		m.chunk = int64(attrs["data_block_size"]) * 512 //nolint:gosec // checked below
		if n := attrs["data_block_size"]; n == 0 || n > 1<<21 {
			return errors.New("the size of chunks")
		}
		return nil
	case "diff", "device", "same":
		return nil
	case "different", "left_only", "right_only":
		begin, length = "begin", "length"
	case "range_mapping":
		begin, length = "origin_begin", "length"
	case "single_mapping":
		begin = "origin_block"
		attrs["1"] = 1
		length = "1"
	default:
		return errors.New("unknown")
	}
	from, ok1 := attrs[begin]
	n, ok2 := attrs[length]
	if !ok1 || !ok2 || n == 0 || from+n > 1<<48 || from < m.end {
		return errors.New("the range")
	}
	m.add(from, n)
	return nil
}

func (m *mappings) add(from, n uint64) {
	if !m.open || from != m.end {
		m.flush()
		m.last, m.open = from, true
	}
	m.end = from + n
}

// flush writes the range that is open. Its begin is told from zero: binary.Uvarint
// makes small numbers short, and most are distances.
func (m *mappings) flush() {
	if m.open {
		m.list = binary.AppendUvarint(m.list, m.last)
		m.list = binary.AppendUvarint(m.list, m.end-m.last)
	}
	m.open = false
}

// blocks are the ranges in bytes, from an offset on, of a volume of this size.
func (m *mappings) blocks(offset, size int64) iter.Seq2[backends.Block, error] {
	return func(yield func(backends.Block, error) bool) {
		for list := m.list; len(list) > 0; {
			from, n := binary.Uvarint(list)
			list = list[n:]
			count, n := binary.Uvarint(list)
			list = list[n:]
			begin := int64(from) * m.chunk               //nolint:gosec // below 2^48
			end := min(size, begin+int64(count)*m.chunk) //nolint:gosec // below 2^48
			if begin = max(begin, min(offset, size)); begin < end && !yield(backends.Block{Offset: begin, Size: end - begin}, nil) {
				return
			}
		}
	}
}
