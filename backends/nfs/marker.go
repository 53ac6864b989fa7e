package nfs

import (
	"errors"
	"fmt"
	"time"

	"github.com/csikit/csikit/backends"
)

const markerVersion = 1

// States of a marker.
const (
	stateCreating  = "creating"
	stateReady     = "ready"
	stateDeleting  = "deleting"  // its directory goes to Target, in the trash
	stateArchiving = "archiving" // its directory goes to Target, at the root of the share
	stateRetaining = "retaining" // its directory stays
)

// marker says that a directory is a volume of ours.
type marker struct {
	Version     int       `json:"version"`
	Nonce       string    `json:"nonce"` // no two records are the same
	Key         string    `json:"key"`
	Name        string    `json:"name"`
	SubDir      string    `json:"subDir"`
	State       string    `json:"state"`
	OnDelete    string    `json:"onDelete"`
	Size        int64     `json:"size,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Created     time.Time `json:"created"`
	Options     []string  `json:"options,omitempty"` // mount options of its class
	Source      *origin   `json:"source,omitempty"`
	Ephemeral   string    `json:"ephemeral,omitempty"` // the CO's ID of a volume that lives as long as a pod
	Adopted     bool      `json:"adopted,omitempty"`
	Legacy      string    `json:"legacy,omitempty"` // its handle, of csi-driver-nfs

	// Inode of the directory, once it is known, and Root, of the installation's, at
	// that time: another one there means that the share was copied, and inodes with it.
	Inode uint64 `json:"inode,omitempty"`
	Root  uint64 `json:"root,omitempty"`

	Target  string `json:"target,omitempty"`  // see State
	Project uint32 `json:"project,omitempty"` // ID of a project quota
}

// origin is a backends.ContentSource: one of the two is set.
type origin struct {
	SnapshotID string `json:"snapshotID,omitempty"`
	VolumeID   string `json:"volumeID,omitempty"`
}

func (m *marker) source() backends.ContentSource {
	if m.Source == nil {
		return backends.ContentSource{}
	}
	return backends.ContentSource(*m.Source)
}

// check says what is wrong with a marker that was read as key's.
func (m *marker) check(key string) error {
	if m.Version != markerVersion {
		return fmt.Errorf("%w: the marker of %s has version %d, this driver knows %d", backends.ErrPrecondition, key, m.Version, markerVersion)
	}
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(m.Key != key, "it is of %q", m.Key)
	bad(m.Legacy == "" && m.Ephemeral == "" && keyOf(m.Name) != key, "name %q belongs elsewhere", m.Name)
	if err := checkSubDir(m.SubDir); err != nil {
		errs = append(errs, fmt.Errorf("subDir: %w", err))
	}
	switch m.State {
	case stateCreating, stateReady, stateRetaining:
	case stateDeleting, stateArchiving:
		bad(m.Target == "", "state %q without a target", m.State)
	default:
		bad(true, "state is %q", m.State)
	}
	bad(m.Size < 0, "size is %d", m.Size)
	if err := errors.Join(errs...); err != nil {
		return unavailable("the marker of %s is damaged: %w", key, err)
	}
	return nil
}

func markerPath(key string) string { return dirVolumes + "/" + key + ".json" }

// marker reads the marker of a key. Without one the error is fs.ErrNotExist.
func (s *site) marker(key string) (*marker, error) {
	var m marker
	if err := s.read(markerPath(key), &m); err != nil {
		return nil, s.absent(dirVolumes, err)
	}
	if err := m.check(key); err != nil {
		return nil, err
	}
	return &m, nil
}

func (s *site) save(m *marker) error {
	m.Nonce = randomName()
	return s.write(markerPath(m.Key), m)
}

func (s *site) saveNew(m *marker) error {
	m.Nonce = randomName()
	return s.writeNew(markerPath(m.Key), m)
}
