package loopfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/internal/faultpoint"
)

const (
	metaVersion = 5 // the newest; see meta.version
	metaFile    = "meta.json"
	metaNew     = "meta.json.new"
	imgFile     = "img"

	typeThick = "thick"
	typeThin  = "thin"
)

// meta is what a volume knows of itself. It is written whole, to a new file that
// replaces the old one, so that a reader never sees half of it. A change of this
// struct is a new metaVersion: an older driver must refuse what it would drop.
// It is written in the oldest version that holds what it says, so that an older
// driver can go on serving the volumes that have nothing newer.
type meta struct {
	Version     int               `json:"version"`
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	BlockSize   uint32            `json:"blockSize"`
	Size        int64             `json:"size"`             // what img has at least
	Target      int64             `json:"target,omitempty"` // what img is growing to
	Fingerprint string            `json:"fingerprint,omitempty"`
	Created     time.Time         `json:"created"`
	Format      string            `json:"format"` // never, raw, started, done
	FSType      string            `json:"fsType,omitempty"`
	Parameters  map[string]string `json:"parameters,omitempty"`

	// Version 2.
	Source    *origin     `json:"source,omitempty"`    // what it was made of
	Ephemeral string      `json:"ephemeral,omitempty"` // the CO's ID of a volume that lives as long as a pod
	Attached  *attachment `json:"attached,omitempty"`  // see Options.Attach

	// Version 5 has a mode in Attached. Version 4 is of encrypted volumes, version 3:
	Mutable map[string]string `json:"mutable,omitempty"` // as they were asked for last, see package iolimit
}

// origin is a backends.ContentSource: one of the two is set.
type origin struct {
	SnapshotID string `json:"snapshotID,omitempty"`
	VolumeID   string `json:"volumeID,omitempty"`
}

// version is the oldest that holds what m says.
func (m *meta) version() int {
	if m.Attached != nil && m.Attached.Mode != "" {
		return 5
	}
	if m.encrypted() {
		return 4 // an older driver would give it away unencrypted
	}
	if len(m.Mutable) > 0 {
		return 3
	}
	if m.Source != nil || m.Ephemeral != "" || m.Attached != nil {
		return 2
	}
	return 1
}

func (m *meta) source() backends.ContentSource {
	if m.Source == nil {
		return backends.ContentSource{}
	}
	return backends.ContentSource(*m.Source)
}

func (m *meta) thick() bool { return m.Type == typeThick }

// formatRaw is a volume that was given away as a block device: what is on it is
// not known, and nobody vouches that it is nothing.
const formatRaw = "raw"

var formats = map[string]backends.FormatState{
	backends.FormatNever.String():   backends.FormatNever,
	formatRaw:                       backends.FormatUnknown,
	backends.FormatStarted.String(): backends.FormatStarted,
	backends.FormatDone.String():    backends.FormatDone,
}

func (m *meta) format() backends.FormatState { return formats[m.Format] }

// check says what is wrong with a meta that stands in directory dir.
func (m *meta) check(id string) error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(m.ID != id, "id is %q, not %q", m.ID, id)
	_, dir, _ := splitID(id)
	bad(dirOf(m.Name) != dir, "name %q belongs elsewhere", m.Name)
	bad(m.Type != typeThick && m.Type != typeThin, "type is %q", m.Type)
	bad(m.BlockSize != 512 && m.BlockSize != 4096, "blockSize is %d", m.BlockSize)
	bad(m.Size <= 0, "size is %d", m.Size)
	bad(m.Target != 0 && m.Target < m.Size, "target is %d", m.Target)
	_, known := formats[m.Format]
	bad(!known, "format is %q", m.Format)
	_, err := iolimit.Parse(m.Mutable)
	bad(err != nil, "limits: %v", err)
	bad(m.Version < m.version(), "version is %d, with what version %d has", m.Version, m.version())
	return errors.Join(errs...)
}

// decodeMeta reads a meta of the volume id. A version that this driver does not
// know is ErrPrecondition, a torn or foreign file ErrUnavailable: neither is
// ever a volume that does not exist.
func decodeMeta(b []byte, id string) (*meta, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: torn: %w", backends.ErrUnavailable, err)
	}
	if v.Version < 1 || v.Version > metaVersion {
		return nil, fmt.Errorf("%w: version %d, this driver knows 1 to %d", backends.ErrPrecondition, v.Version, metaVersion)
	}
	var m meta
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: text after the end", backends.ErrUnavailable)
	}
	if err := m.check(id); err != nil {
		return nil, fmt.Errorf("%w: foreign: %w", backends.ErrUnavailable, err)
	}
	return &m, nil
}

// writeFile makes b the durable content of name in dir: a reader, and a crash,
// finds the old content or the new.
func writeFile(dir *os.Root, name, tmp string, b []byte) error {
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	faultpoint.Reach("loopfile.meta.written")
	if err := dir.Rename(tmp, name); err != nil {
		return err
	}
	faultpoint.Reach("loopfile.meta.renamed")
	return syncDir(dir)
}

func writeMeta(dir *os.Root, m *meta) error {
	w := *m
	w.Version = w.version()
	return writeJSON(dir, &w)
}

// writeJSON makes v the meta of a directory.
func writeJSON(dir *os.Root, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(dir, metaFile, metaNew, append(b, '\n'))
}

func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// notExist tells a missing file from every other failure.
func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
