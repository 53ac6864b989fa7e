package mounter

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/csikit/csikit/internal/faultpoint"
)

const tmpPrefix = ".tmp-"

// maxSpares bounds the files that are kept to be written over.
const maxSpares = 64

// files writes and removes small files so that after a crash each is the old or
// the new one, or gone.
//
// A file that is not needed any more is not deleted but kept as a spare, and the
// next one is written over it: to free a block costs a journal commit of about a
// millisecond on a file system that discards, ten times the write itself, and a
// volume's life has eight of them. What a spare holds is never read; its name has
// tmpPrefix, and the next start deletes it.
type files struct {
	dir string // "": nothing is kept

	guard  sync.Mutex
	spares []string // paths
	moved  int      // numbers them
}

// write makes the file durable under its name before it returns.
func (d *files) write(name string, b []byte) error {
	if d.dir == "" {
		return nil
	}
	tmp, err := d.fill(b)
	if err != nil {
		return err
	}
	faultpoint.Reach("mounter.record.filled")
	target := filepath.Join(d.dir, name)
	spare := false
	err = exchange(tmp, target)
	switch {
	case err == nil:
		spare = true // tmp is the old file now
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errors.ErrUnsupported):
		err = os.Rename(tmp, target)
	}
	faultpoint.Reach("mounter.record.renamed")
	if err == nil {
		err = syncDir(d.dir)
	}
	if err != nil {
		_ = os.Remove(tmp) // what this leaves, the next start removes
		return err
	}
	if spare {
		d.keep(tmp)
	}
	return nil
}

// fill gives the path of a file that durably holds b.
func (d *files) fill(b []byte) (path string, err error) {
	f, err := d.spare()
	if err != nil {
		return "", err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name()) // as in write
		return "", err
	}
	return f.Name(), nil
}

// spare opens a file to be written over, or makes one.
func (d *files) spare() (*os.File, error) {
	d.guard.Lock()
	defer d.guard.Unlock()
	for len(d.spares) > 0 {
		name := d.spares[len(d.spares)-1]
		d.spares = d.spares[:len(d.spares)-1]
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			return f, nil
		}
	}
	return os.CreateTemp(d.dir, tmpPrefix+"*") // 0600
}

// keep makes the file at path a spare.
func (d *files) keep(path string) {
	d.guard.Lock()
	full := len(d.spares) >= maxSpares
	if !full {
		d.spares = append(d.spares, path)
	}
	d.guard.Unlock()
	if full {
		_ = os.Remove(path) // as in write
	}
}

// remove makes the name durably gone; a name that is not there is.
func (d *files) remove(name string) error {
	if d.dir == "" {
		return nil
	}
	d.guard.Lock()
	d.moved++
	// Never a name of CreateTemp's, and of an earlier process none is left.
	tmp := filepath.Join(d.dir, tmpPrefix+"r"+strconv.Itoa(d.moved))
	d.guard.Unlock()
	err := os.Rename(filepath.Join(d.dir, name), tmp)
	if errors.Is(err, fs.ErrNotExist) {
		return syncDir(d.dir)
	}
	faultpoint.Reach("mounter.record.moved")
	if err == nil {
		err = syncDir(d.dir)
	}
	if err != nil {
		return err
	}
	d.keep(tmp)
	return nil
}

// dropSpares deletes what is kept to be written over.
func (d *files) dropSpares() {
	d.guard.Lock()
	defer d.guard.Unlock()
	for _, path := range d.spares {
		_ = os.Remove(path) // as in write
	}
	d.spares = nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
