package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Errors of a journal, for errors.Is.
var (
	// ErrLocked: another process has the journal.
	ErrLocked = errors.New("the journal is in use by another process")
	// ErrActive: another caller has the intent of this key and has not left it.
	ErrActive = errors.New("the intent is in use")
	// ErrFull: there are Options.Max unfinished intents.
	ErrFull = errors.New("the journal is full")
	// ErrTooLarge: a record would be larger than Options.MaxSize.
	ErrTooLarge = errors.New("the record is too large")
	// ErrClosed: the journal was closed, or the intent finished or left.
	ErrClosed = errors.New("closed")
)

// Options of a journal. Nil or zero values mean the defaults.
type Options struct {
	// Max is how many unfinished intents there may be, those that cannot be read
	// counted: 0: 10,000.
	Max int
	// MaxSize is the largest record in bytes: 0: 64 KiB, at most 1 MiB.
	MaxSize int
}

// Journal is a directory of intents. Its methods may be called concurrently.
type Journal struct {
	o   Options
	dir *os.File // locked

	files   sync.RWMutex // read: files are changed; written: by Close
	mu      sync.Mutex
	closed  bool
	entries map[string]*entry       // by file name
	refused map[string]*RecordError // by file name
}

// entry is an unfinished intent.
type entry struct {
	record
	file   string
	active bool // a caller has it
	unsure bool // what is on the disk is not known; of the caller who has it
}

// Open opens the journal in dir, which it makes if there is none, and reads it.
// It takes the directory for this process; a killed one gives it back. Records
// that cannot be read are no error: see [Journal.Refused].
func Open(dir string, o *Options) (*Journal, error) {
	j := &Journal{entries: make(map[string]*entry), refused: make(map[string]*RecordError)}
	if o != nil {
		j.o = *o
	}
	if j.o.Max <= 0 {
		j.o.Max = 10_000
	}
	if j.o.MaxSize <= 0 {
		j.o.MaxSize = 64 << 10
	}
	j.o.MaxSize = min(j.o.MaxSize, maxSize)
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j.dir = d
	if err := lockFile(d); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", dir, err), d.Close())
	}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", dir, err), d.Close())
	}
	return j, nil
}

// makeDir makes dir and, so that it is there after a power cut, syncs what it
// lies in.
func makeDir(dir string) error {
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// load reads all records, and removes what was being written when the last
// process ended.
func (j *Journal) load() error {
	all, err := j.dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, f := range all {
		switch name := f.Name(); {
		case strings.HasSuffix(name, suffix+temporary):
			if err := os.Remove(j.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case strings.HasSuffix(name, suffix):
			r, err := readRecord(j.path(name), f)
			if err != nil {
				j.refused[name] = &RecordError{File: j.path(name), Err: err}
				continue
			}
			j.entries[name] = &entry{record: *r, file: name}
		}
	}
	return nil
}

func (j *Journal) path(name string) string { return filepath.Join(j.dir.Name(), name) }

// Begin writes an intent down and takes it. An unfinished one of the same key is
// taken as it is, with its own data and not with these: see [Intent.Earlier].
//
// The key says what is meant to be done to what, and is the same in a retry. Data
// is written as JSON; nil is none. Begin fails, and nothing must be done then, if
// the disk does, if the journal is full, if another caller has the intent
// ([ErrActive]) or if its record was refused (a [*RecordError]).
func (j *Journal) Begin(key string, data any) (*Intent, error) {
	j.files.RLock()
	defer j.files.RUnlock()
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("journal: intent %q: %w", key, err)
	}
	e, earlier, err := j.take(key, true)
	if err != nil {
		return nil, fmt.Errorf("journal: intent %q: %w", key, err)
	}
	in := &Intent{j: j, e: e, earlier: earlier}
	if earlier && !e.unsure {
		return in, nil
	}
	r := e.record
	if !earlier {
		now := time.Now().UTC()
		r = record{Key: key, Began: now, Updated: now, Data: raw}
	}
	if err := j.write(e, r); err != nil {
		j.release(e, !earlier && !e.unsure)
		return nil, fmt.Errorf("journal: intent %q: %w", key, err)
	}
	return in, nil
}

// take finds the entry of a key, or makes it, for one caller.
func (j *Journal) take(key string, orMake bool) (e *entry, earlier bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	name := fileName(key)
	e, bad := j.entries[name], j.refused[name]
	switch {
	case j.closed:
		return nil, false, ErrClosed
	case bad != nil:
		return nil, false, bad
	case e != nil && e.active:
		return nil, false, ErrActive
	case e != nil:
		e.active = true
		return e, true, nil
	case !orMake:
		return nil, false, nil
	case len(j.entries)+len(j.refused) >= j.o.Max:
		return nil, false, fmt.Errorf("%w: %d intents are unfinished", ErrFull, j.o.Max)
	}
	e = &entry{file: name, active: true}
	j.entries[name] = e
	return e, false, nil
}

// release gives an entry back, or takes it out.
func (j *Journal) release(e *entry, gone bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.active = false
	if gone {
		delete(j.entries, e.file)
	}
}

// Close gives the journal back. It waits for what is being written; intents that
// are not finished stay.
func (j *Journal) Close() error {
	j.files.Lock()
	defer j.files.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	return j.dir.Close()
}
