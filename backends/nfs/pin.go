package nfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/csikit/csikit/backends"
)

// What tells one share from another is the ID in its share.json. The driver keeps the
// IDs that it has seen, where the share's server cannot lose them: an empty mount point,
// or another disk in its place, has no volumes, and "not found" would make the CO forget
// all of them. The first sight of a share is believed; who wants that, too, to be certain
// configures the ID (Share.ID).

const pinVersion = 1

// pin is the file in which an ID is kept.
type pin struct {
	Version int    `json:"version"`
	Share   string `json:"share"` // for who reads it
	ID      string `json:"id"`
}

// identity is which share a task has to find.
type identity struct {
	ID   string `json:"id,omitempty"`   // "": not known yet
	By   string `json:"by,omitempty"`   // who says so
	Undo string `json:"undo,omitempty"` // what to do if it shall be another one
}

// lost says that the share is not there.
func (w identity) lost(what string) error {
	return unavailable("%s is not there, and by %s this share was prepared before, as %s: its disk is not mounted on the server, or another directory is exported. "+
		"Nothing is made there. If all that it held is gone for good: %s, and let it be prepared (Options.Init)", what, w.By, w.ID, w.Undo)
}

// other says that another share is there.
func (w identity) other(what, id string) error {
	return unavailable("%s is of the share with the ID %s, and by %s it has to be %s: another disk is mounted there, or another directory exported. "+
		"If this is the right one from now on: %s", what, id, w.By, w.ID, w.Undo)
}

// pins are the IDs of shares, by pinName.
type pins struct {
	dir string
	log *slog.Logger

	mu sync.Mutex
	m  map[string]string // those of this process, also when dir cannot be written
}

func newPins(o *Options) *pins {
	return &pins{dir: filepath.Join(o.StateDir, o.Installation), log: o.Logger, m: map[string]string{}}
}

// pinName is the name of a share's file. A share with a name may move to another server.
func pinName(s Share) string {
	if s.Name != "" {
		return "name-" + s.Name + ".json"
	}
	return "source-" + keyOf(s.source("")) + ".json"
}

func (p *pins) known(id, file string) identity {
	return identity{ID: id, By: file, Undo: "remove that file on this host, and start the driver anew"}
}

// of is the identity of a share, with an empty ID if nobody knows it.
func (p *pins) of(s Share) (identity, error) {
	if s.ID != "" {
		return identity{ID: s.ID, By: "the driver's configuration (Share.ID)", Undo: "change it there"}, nil
	}
	name := pinName(s)
	file := filepath.Join(p.dir, name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if id := p.m[name]; id != "" {
		return p.known(id, file), nil
	}
	id, err := readPin(file)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, unavailable("which share %s is cannot be read: %w", s, err)
	}
	p.m[name] = id
	return p.known(id, file), nil
}

func readPin(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var have pin
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&have); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	if have.Version != pinVersion || have.ID == "" {
		return "", fmt.Errorf("%s: version %d, ID %q: this driver knows version %d", file, have.Version, have.ID, pinVersion)
	}
	return have.ID, nil
}

// keep remembers the ID of a share that was seen for the first time. Another process of
// this host may have seen it first, and another share: then nobody knows which is right.
func (p *pins) keep(s Share, id string) error {
	if id == "" || s.ID != "" {
		return nil
	}
	name := pinName(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.m[name]; have != "" {
		return p.compare(s, have, id)
	}
	err := writePin(filepath.Join(p.dir, name), pin{pinVersion, s.String(), id})
	if errors.Is(err, fs.ErrExist) {
		have, err := readPin(filepath.Join(p.dir, name))
		if err != nil {
			return unavailable("which share %s is cannot be read: %w", s, err)
		}
		p.m[name] = have
		return p.compare(s, have, id)
	}
	if err != nil {
		// The share is as good as before; it is the next start that believes what it finds.
		p.log.Error("which share this is cannot be kept: another one in its place will not be noticed after a start (Options.StateDir, or Share.ID)",
			"share", s.String(), "id", id, "err", err)
	} else {
		p.log.Info("share is known from now on", "share", s.String(), "id", id, "file", filepath.Join(p.dir, name))
	}
	p.m[name] = id
	return nil
}

func (p *pins) compare(s Share, have, id string) error {
	if have == id {
		return nil
	}
	return p.known(have, filepath.Join(p.dir, pinName(s))).other("share "+s.String(), id)
}

// writePin makes the file, whole or not at all; fs.ErrExist if it is there.
func writePin(file string, content pin) (err error) {
	b, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// identify sees to it that a share is the one that it was. See identity.
func (s *site) identify(create bool, want identity) error {
	id, err := s.find()
	if notExist(err) && create && want.ID == "" {
		if err := s.init(); err != nil {
			return err
		}
		id, err = s.find()
	}
	switch {
	case notExist(err) && want.ID != "":
		return want.lost(s.full(shareFile))
	case notExist(err) && s.inode != 0:
		return unavailable("%s has no %s: it was not finished", s.control, shareFile)
	case notExist(err):
		return nil
	case err != nil:
		return err
	case want.ID != "" && want.ID != id:
		return want.other(s.full(shareFile), id)
	}
	s.id = id
	return nil
}

// find reads the share's ID; fs.ErrNotExist if it has none.
func (s *site) find() (id string, err error) {
	info, err := s.root.Lstat(s.control)
	if err != nil {
		return "", err
	}
	s.inode = info.Ino
	var i siteInfo
	if err := s.read(shareFile, &i); err != nil {
		return "", err
	}
	if i.Version != siteVersion {
		return "", fmt.Errorf("%w: %s has version %d, this driver knows %d", backends.ErrPrecondition, s.control, i.Version, siteVersion)
	}
	if i.ID == "" {
		return "", unavailable("%s has no ID", s.full(shareFile))
	}
	return i.ID, nil
}
