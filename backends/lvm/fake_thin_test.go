package lvm

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// The metadata of a fakeVG's pool, and the tools that read it.

func (f *fakeVG) metadataOf(uuid string) (string, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.find(uuid) == nil {
		return "", false, nil
	}
	return "/dev/meta", f.held, nil
}

func (f *fakeVG) message(_, text string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held == (text == "reserve_metadata_snap") {
		return errors.New("device or resource busy, or invalid argument")
	}
	f.held = !f.held
	return nil
}

// fakeChunk is what the pool gives away.
const fakeChunk = 64 << 10

// thinTool is thin_dump or thin_delta.
func (f *fakeVG) thinTool(tool string, args []string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.held || len(args) < 3 || args[0] != "--metadata-snap" {
		return nil, exit(1, tool)
	}
	of := func(id string) []byte {
		for _, l := range f.lvs {
			if l.pool != "" && strconv.Itoa(l.thin) == id {
				return l.bytes
			}
		}
		return nil
	}
	var a []byte
	b := of(args[2])
	if tool == "thin_delta" {
		a, b = b, of(args[4])
	}
	out := `<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="0">` + "\n"
	for i := 0; i < max(len(a), len(b)); i += fakeChunk {
		piece := func(p []byte) []byte { return bytes.TrimRight(p[min(i, len(p)):min(i+fakeChunk, len(p))], "\x00") }
		switch {
		case bytes.Equal(piece(a), piece(b)):
		case tool == "thin_delta":
			out += fmt.Sprintf("    <different begin=\"%d\" length=\"1\"/>\n", i/fakeChunk)
		default:
			out += fmt.Sprintf("    <single_mapping origin_block=\"%d\" data_block=\"7\" time=\"0\"/>\n", i/fakeChunk)
		}
	}
	return []byte(out + "</superblock>\n"), nil
}
