package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/csikit/csikit/internal/faultpoint"
)

const (
	// version is the form that this release writes, and the newest that it reads. A
	// field that an older reader may ignore is added without a new one.
	version   = 1
	magic     = "csikit-intent"
	suffix    = ".intent"
	temporary = ".tmp"
	maxSize   = 1 << 20
)

// Reasons why a record is refused, for errors.Is.
var (
	// ErrCorrupt: the record is cut short or was changed, by a disk or by hand.
	ErrCorrupt = errors.New("the record is damaged")
	// ErrNewer: a newer release wrote the record.
	ErrNewer = errors.New("the record is of a newer release")
)

// RecordError says which record is refused, and why.
type RecordError struct {
	File string
	Err  error // ErrCorrupt, ErrNewer, or what the file system said
}

func (e *RecordError) Error() string { return fmt.Sprintf("record %s: %v", e.File, e.Err) }

func (e *RecordError) Unwrap() error { return e.Err }

// record is what a file holds, behind a line with the version and a checksum.
type record struct {
	Key     string          `json:"key"`
	Began   time.Time       `json:"began"`
	Updated time.Time       `json:"updated"`
	Data    json.RawMessage `json:"data"`
}

// fileName is the file of a key, which may be long and hold slashes.
func fileName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16]) + suffix
}

func encode(r *record) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%s %d %08x\n", magic, version, checksum(body)), body...), nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func decode(b []byte) (*record, error) {
	head, body, found := bytes.Cut(b, []byte("\n"))
	var word, sum string
	var v int
	if n, _ := fmt.Sscanf(string(head), "%s %d %s", &word, &v, &sum); n < 2 || word != magic || v < 1 {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrCorrupt)
	}
	if v > version {
		return nil, fmt.Errorf("%w: version %d, known is %d", ErrNewer, v, version)
	}
	if !found || sum != fmt.Sprintf("%08x", checksum(body)) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrCorrupt)
	}
	r := new(record)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return r, nil
}

func readRecord(path string, entry fs.DirEntry) (*record, error) {
	if !entry.Type().IsRegular() {
		return nil, fmt.Errorf("%w: it is no regular file", ErrCorrupt)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrCorrupt, maxSize)
	}
	r, err := decode(b)
	if err == nil && fileName(r.Key) != entry.Name() {
		return nil, fmt.Errorf("%w: it is the record of %q, under another name", ErrCorrupt, r.Key)
	}
	return r, err
}

// write puts the record of e on the disk. After an error the old one, or none, is
// there, unless e says that nobody knows.
func (j *Journal) write(e *entry, r record) error {
	b, err := encode(&r)
	if err != nil {
		return err
	}
	if len(b) > j.o.MaxSize {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), j.o.MaxSize)
	}
	path := j.path(e.file)
	if err := writeSynced(path+temporary, b); err != nil {
		return errors.Join(err, os.Remove(path+temporary))
	}
	faultpoint.Reach("idempotency.journal.filled")
	j.mu.Lock()
	e.record = r
	j.mu.Unlock()
	return e.change(func() error { return os.Rename(path+temporary, path) }, j.dir)
}

// change changes the directory. Until that is on the disk nobody knows what is
// there after a power cut.
func (e *entry) change(how func() error, dir *os.File) error {
	e.unsure = true
	if err := how(); err != nil {
		return err
	}
	faultpoint.Reach("idempotency.journal.changed")
	if err := dir.Sync(); err != nil {
		return err
	}
	e.unsure = false
	faultpoint.Reach("idempotency.journal.synced")
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// remove takes the record of e from the disk.
func (j *Journal) remove(e *entry) error {
	return e.change(func() error {
		if err := os.Remove(j.path(e.file)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}, j.dir)
}
