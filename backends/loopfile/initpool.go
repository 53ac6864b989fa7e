package loopfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
)

// PoolOptions configure InitPool.
type PoolOptions struct {
	// Name is the first part of every volume ID; "": a random one. The name of a
	// lost pool, given to its successor, declares the lost volumes gone: their
	// IDs are not-found from then on, and a CO can delete them.
	Name        string
	AllowRootFS bool // as in Options
}

// InitPool makes dir a pool: an empty directory (lost+found is no content), or
// one that a killed InitPool left. A directory that is a pool already stays as
// it is. It makes dir when there is none, but not dir's parents.
func InitPool(dir string, o *PoolOptions) (PoolInfo, error) {
	if o == nil {
		o = &PoolOptions{}
	}
	if o.Name != "" && !validPoolName(o.Name) {
		return PoolInfo{}, fmt.Errorf("%w: pool name %q: want %s", backends.ErrInvalid, o.Name, poolNameRule)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return PoolInfo{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return PoolInfo{}, err
	}
	p := &pool{dir: dir, root: root}
	defer p.close()
	facts, err := p.facts()
	if err != nil {
		return PoolInfo{}, err
	}
	if err := facts.allowed(dir, o.AllowRootFS); err != nil {
		return PoolInfo{}, err
	}
	if _, err := root.Lstat(poolFile); err == nil {
		return keepPool(dir, root, o.Name)
	} else if !notExist(err) {
		return PoolInfo{}, err
	}
	if err := emptyEnough(dir, root); err != nil {
		return PoolInfo{}, err
	}
	if p.locks, err = lockHalves(dir, root, ControllerHalf|NodeHalf); err != nil {
		return PoolInfo{}, err
	}
	info := PoolInfo{Version: poolVersion, ID: randomName(26), Name: o.Name, FSType: facts.Type, FSID: facts.ID}
	if info.Name == "" {
		info.Name = info.ID[:10]
	}
	return info, makePool(root, info)
}

func keepPool(dir string, root *os.Root, name string) (PoolInfo, error) {
	i, err := readPoolInfo(dir, root)
	if err == nil && name != "" && i.Name != name {
		return i, fmt.Errorf("%w: %s is a pool already, called %q", backends.ErrIncompatible, dir, i.Name)
	}
	return i, err
}

// makePool fills an empty directory; pool.json comes last and makes it a pool.
func makePool(root *os.Root, info PoolInfo) error {
	for _, d := range []string{volumesDir, tmpDir, trashDir, snapsDir, groupsDir} {
		if err := root.Mkdir(d, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(root, poolFile, poolNew, append(b, '\n'))
}

// emptyEnough refuses to make a pool around somebody's files.
func emptyEnough(dir string, root *os.Root) error {
	names, err := readNames(root, ".")
	if err != nil {
		return err
	}
	for _, n := range names {
		switch n {
		case "lost+found", poolNew, lockController, lockNode:
			continue
		case volumesDir, tmpDir, trashDir, snapsDir, groupsDir:
			inner, err := readNames(root, n)
			if err != nil {
				return err
			}
			if len(inner) == 0 {
				continue
			}
		}
		return fmt.Errorf("%w: %s is not empty (%q): not made a pool", backends.ErrPrecondition, dir, n)
	}
	return nil
}

func readNames(root *os.Root, name string) ([]string, error) {
	d, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}
