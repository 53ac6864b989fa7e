package loopfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/csikit/csikit/backends"
)

const (
	poolVersion = 1
	poolFile    = "pool.json"
	poolNew     = "pool.json.new"
	volumesDir  = "v"
	tmpDir      = ".tmp"
	trashDir    = ".trash"
	snapsDir    = "s"
	groupsDir   = "g"
)

// PoolInfo is what pool.json says.
type PoolInfo struct {
	Version int    `json:"version"`
	ID      string `json:"id"`   // random: no two pools share it
	Name    string `json:"name"` // the first part of every volume ID
	// FSType and FSID are hints for people: what the pool was made on.
	FSType string `json:"fsType"`
	FSID   string `json:"fsID"`
}

// pool is an opened pool. The descriptors that it holds stay on the file system
// that was looked at when it was opened, whatever is mounted over it later.
type pool struct {
	dir   string // as given
	info  PoolInfo
	root  *os.Root
	vols  *os.File // v
	tmp   *os.File // .tmp
	trash *os.File // .trash
	snaps *os.File // s
	group *os.File // g
	locks []*os.File
	users sync.WaitGroup

	tryReflink sync.Once
	canReflink bool
	tryTimes   sync.Once
	fineTimes  bool
}

// openPool opens what InitPool made, and locks the halves for this process.
func openPool(dir string, o *Options) (_ *pool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, unavailable(dir, err)
	}
	p := &pool{dir: dir, root: root}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.info, err = readPoolInfo(dir, root); err != nil {
		return nil, err
	}
	if o.Name != "" && p.info.Name != o.Name {
		return nil, fmt.Errorf("%w: %s is pool %q, not %q", backends.ErrUnavailable, dir, p.info.Name, o.Name)
	}
	if err := addDirs(root); err != nil {
		return nil, unavailable(dir, err)
	}
	for name, f := range p.dirs() {
		if *f, err = root.Open(name); err != nil {
			return nil, unavailable(dir, err)
		}
	}
	facts, err := p.facts()
	if err != nil {
		return nil, unavailable(dir, err)
	}
	if err := facts.allowed(dir, o.AllowRootFS); err != nil {
		return nil, err
	}
	if facts.ID != p.info.FSID || facts.Type != p.info.FSType {
		o.Logger.Warn("pool is on another file system than it was made on", "pool", dir,
			"made", p.info.FSType+" "+p.info.FSID, "now", facts.Type+" "+facts.ID)
	}
	if p.locks, err = lockHalves(dir, root, o.Half); err != nil {
		return nil, err
	}
	return p, nil
}

// dirs are the directories of a pool that are held open.
func (p *pool) dirs() map[string]**os.File {
	return map[string]**os.File{
		volumesDir: &p.vols, tmpDir: &p.tmp, trashDir: &p.trash, snapsDir: &p.snaps, groupsDir: &p.group,
	}
}

// addDirs makes the directories that a pool of an earlier release does not have.
func addDirs(root *os.Root) error {
	for _, d := range []string{snapsDir, groupsDir} {
		if err := root.Mkdir(d, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func readPoolInfo(dir string, root *os.Root) (PoolInfo, error) {
	var i PoolInfo
	b, err := root.ReadFile(poolFile)
	if notExist(err) {
		return i, fmt.Errorf("%w: %s has no %s: pool not initialised, or its disk not mounted", backends.ErrUnavailable, dir, poolFile)
	}
	if err != nil {
		return i, unavailable(dir, err)
	}
	if err := json.Unmarshal(b, &i); err != nil {
		return i, fmt.Errorf("%w: %s: %w", backends.ErrUnavailable, filepath.Join(dir, poolFile), err)
	}
	if i.Version != poolVersion {
		return i, refuse("%s has version %d, this driver knows %d", filepath.Join(dir, poolFile), i.Version, poolVersion)
	}
	if i.ID == "" || !validPoolName(i.Name) {
		return i, fmt.Errorf("%w: %s: id %q, name %q", backends.ErrUnavailable, filepath.Join(dir, poolFile), i.ID, i.Name)
	}
	return i, nil
}

// verify says whether the directory is still this pool: about nine system calls.
func (p *pool) verify() error {
	now, err := os.Stat(p.dir)
	if err != nil {
		return unavailable(p.dir, err)
	}
	held, err := p.root.Stat(".")
	if err != nil {
		return unavailable(p.dir, err)
	}
	if !os.SameFile(now, held) {
		return fmt.Errorf("%w: %s is not the directory any more in which pool %s was opened (disk not mounted, or another one?)", backends.ErrUnavailable, p.dir, p.info.Name)
	}
	i, err := readPoolInfo(p.dir, p.root)
	if err != nil {
		return err
	}
	if i.ID != p.info.ID || i.Name != p.info.Name {
		return fmt.Errorf("%w: %s is pool %s (%s) now, it was %s (%s)", backends.ErrUnavailable, p.dir, i.Name, i.ID, p.info.Name, p.info.ID)
	}
	for name, f := range map[string]*os.File{volumesDir: p.vols, snapsDir: p.snaps, groupsDir: p.group} {
		if err := p.verifyDir(name, f, device(held)); err != nil {
			return err
		}
	}
	return nil
}

// verifyDir says whether name is still the directory that was opened, and no
// mount point: what is not in it is not in the pool.
func (p *pool) verifyDir(name string, f *os.File, dev uint64) error {
	now, err := p.root.Lstat(name)
	if err != nil {
		return unavailable(p.dir, err)
	}
	held, err := f.Stat()
	if err != nil {
		return unavailable(p.dir, err)
	}
	if !os.SameFile(now, held) || device(now) != dev {
		return fmt.Errorf("%w: %s is not the directory any more that it was", backends.ErrUnavailable, filepath.Join(p.dir, name))
	}
	return nil
}

func (p *pool) close() {
	for _, f := range append([]*os.File{p.vols, p.tmp, p.trash, p.snaps, p.group}, p.locks...) {
		if f != nil {
			_ = f.Close() // opened for reading, or for its lock alone
		}
	}
	_ = p.root.Close()
}

// errRefused marks what time alone does not mend: New returns it. At a later call
// it is as unavailable as the rest.
var errRefused = errors.New("pool refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w: %w", backends.ErrUnavailable, errRefused, fmt.Errorf(format, args...))
}

func unavailable(what string, err error) error {
	return fmt.Errorf("%w: %s: %w", backends.ErrUnavailable, what, err)
}

// device is the device number of a file, as stat(2) has it.
func device(fi os.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev) //nolint:unconvert // int32 on darwin
	}
	return 0
}

// special is the number of the device that a device node stands for.
func special(fi os.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Rdev) //nolint:unconvert // int32 on darwin
	}
	return 0
}

// inode is the inode number of a file.
func inode(fi os.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// allocated is what a file takes on disk, in bytes.
func allocated(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512 //nolint:unconvert // by platform
	}
	return 0
}
