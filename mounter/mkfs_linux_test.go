package mounter

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/blockdev"
)

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]version{
		"mkfs.xfs version 6.1.0":                  {6, 1},
		"\nmke2fs 1.47.0 (5-Feb-2023)":            {1, 47},
		"mkfs.btrfs, part of btrfs-progs v6.19.1": {6, 19},
		"6.18.44-fc-v595":                         {6, 18},
		"5.14.0-503.el9.x86_64":                   {5, 14},
		"6.1-rc3":                                 {6, 1},
		"version -6.1":                            {6, 1},
		"none":                                    {},
		"":                                        {},
	} {
		if got, ok := parseVersion(s); got != want || ok != (want != version{}) {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	if v := kernelRelease(); v[0] < 3 || v[0] > 100 {
		t.Errorf("this kernel is %v", v)
	}
}

// TestMkfsFeatures: what is turned off for whom.
func TestMkfsFeatures(t *testing.T) {
	for _, c := range []struct {
		fsType       string
		kernel, tool version
		options      string
		want         string
	}{
		{"ext4", version{6, 18}, version{1, 47}, "", ""},
		{"ext4", version{5, 10}, version{1, 47}, "", "-O ^orphan_file"},
		{"ext4", version{5, 10}, version{1, 46}, "", ""},
		{"ext4", version{3, 10}, version{1, 47}, "-L x", "-O ^metadata_csum_seed,^orphan_file -L x"},
		{"ext4", version{5, 10}, version{1, 47}, "-O verity", "-O ^orphan_file,verity"},
		{"ext4", version{5, 10}, version{1, 47}, "-Oa -O verity -b 1024", "-Oa -O ^orphan_file,verity -b 1024"},
		{"ext4", version{5, 10}, version{1, 47}, "-Overity", "-O^orphan_file,verity"},
		{"ext4", version{5, 10}, version{1, 47}, "-O orphan_file", "-O orphan_file"},
		{"ext4", version{5, 10}, version{1, 47}, "-Oorphan_file", "-Oorphan_file"},
		{"ext3", version{5, 10}, version{1, 47}, "", ""},
		{"xfs", version{6, 18}, version{6, 19}, "", ""},
		{"xfs", version{6, 12}, version{6, 19}, "", "-i exchange=0 -n parent=0"},
		{"xfs", version{6, 12}, version{6, 6}, "", ""},
		{"xfs", version{6, 1}, version{6, 6}, "", "-i nrext64=0"},
		{"xfs", version{5, 10}, version{6, 6}, "", "-m bigtime=0 -m inobtcount=0 -i nrext64=0"},
		{"xfs", version{5, 10}, version{6, 6}, "-m bigtime=1,crc=1", "-m inobtcount=0 -i nrext64=0 -m bigtime=1,crc=1"},
		{"xfs", version{5, 10}, version{6, 6}, "-c options=/etc/xfs.conf", "-c options=/etc/xfs.conf"},
		{"xfs", version{4, 14}, version{5, 10}, "", "-m reflink=0 -m rmapbt=0"},
		{"btrfs", version{6, 18}, version{6, 19}, "", ""},
		{"btrfs", version{5, 15}, version{6, 19}, "", "-O ^block-group-tree"},
		{"btrfs", version{5, 15}, version{6, 2}, "", ""},
		{"btrfs", version{4, 4}, version{6, 2}, "", "-R ^free-space-tree"},
		{"btrfs", version{3, 10}, version{5, 15}, "-O ^no-holes", "-R ^free-space-tree -O ^no-holes"},
		{"ext2", version{3, 10}, version{1, 47}, "", ""},
	} {
		options := strings.Fields(c.options)
		got := withFeatures(c.fsType, tooNew(c.fsType, c.kernel, options), c.tool, options)
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s, kernel %v, tool %v, %q: %q, want %q", c.fsType, c.kernel, c.tool, c.options, s, c.want)
		}
		if strings.Join(options, " ") != c.options {
			t.Errorf("the backend's options are changed to %q", options)
		}
	}
}

// superblock reads the feature words of a file system.
func superblock(t *testing.T, d *blockdev.Device, fsType string) (compat, incompat, roCompat uint64) {
	t.Helper()
	b := make([]byte, 128<<10)
	if _, err := d.File().ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	le, be := binary.LittleEndian, binary.BigEndian
	switch fsType {
	case "ext4":
		b = b[1024:]
		return uint64(le.Uint32(b[0x5c:])), uint64(le.Uint32(b[0x60:])), uint64(le.Uint32(b[0x64:]))
	case "xfs":
		return uint64(be.Uint32(b[208:])), uint64(be.Uint32(b[216:])), uint64(be.Uint32(b[212:]))
	default:
		b = b[64<<10:]
		return le.Uint64(b[172:]), le.Uint64(b[188:]), le.Uint64(b[180:])
	}
}

// TestRealMkfsForOldKernel: the real tools, told to make file systems for an old
// kernel and for this one, and what stands in the superblock.
func TestRealMkfsForOldKernel(t *testing.T) {
	testenv.Root(t)
	const (
		xfsReflink, xfsRmap, xfsInobtcount = 1 << 2, 1 << 1, 1 << 3      // ro_compat
		xfsSparse, xfsBigtime, xfsNrext64  = 1 << 1, 1 << 3, 1 << 5      // incompat
		extOrphanFile, extSeed             = 1 << 12, 1 << 13            // compat, incompat
		btrfsFree, btrfsGroups, btrfsHoles = 1<<0 | 1<<1, 1 << 3, 1 << 9 // ro_compat, ro_compat, incompat
	)
	for _, c := range []struct {
		name, fsType               string
		kernel                     version
		options                    []string
		conf                       string
		compat, incompat, roCompat uint64 // none of these bits
		has                        uint64 // all of these, in incompat and ro_compat
	}{
		{name: "old", fsType: "xfs", kernel: version{4, 14}, incompat: xfsBigtime | xfsNrext64, roCompat: xfsReflink | xfsRmap | xfsInobtcount, has: xfsSparse},
		{name: "lts", fsType: "xfs", kernel: version{5, 10}, incompat: xfsBigtime | xfsNrext64, roCompat: xfsInobtcount, has: xfsReflink},
		{name: "asked", fsType: "xfs", kernel: version{5, 10}, options: []string{"-m", "bigtime=1"}, has: xfsBigtime},
		{name: "here", fsType: "xfs", kernel: kernelRelease(), has: xfsBigtime | xfsReflink},
		{name: "old", fsType: "btrfs", kernel: version{3, 10}, incompat: btrfsHoles, roCompat: btrfsFree | btrfsGroups},
		{name: "here", fsType: "btrfs", kernel: kernelRelease(), has: btrfsHoles | btrfsFree},
		// What mke2fs.conf is upstream, and not in Debian.
		{name: "old", fsType: "ext4", kernel: version{4, 3}, conf: "orphan_file,metadata_csum_seed", compat: extOrphanFile, incompat: extSeed},
		{name: "lts", fsType: "ext4", kernel: version{5, 10}, conf: "orphan_file,metadata_csum_seed", compat: extOrphanFile, has: extSeed},
		{name: "asked", fsType: "ext4", kernel: version{4, 3}, options: []string{"-O", "metadata_csum_seed"}, conf: "orphan_file", compat: extOrphanFile, has: extSeed},
	} {
		t.Run(c.fsType+" "+c.name, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+c.fsType)
			path := "/usr/sbin:/usr/bin:/sbin:/bin"
			if c.conf != "" {
				path = configuredMke2fs(t, c.conf) + ":" + path
			}
			d := testDevice(t, 320<<20)
			k := linux{run: command.New(&command.Options{Path: path}), release: c.kernel, tools: &toolVersions{}}
			if err := k.Mkfs(t.Context(), d, c.fsType, slices.Clone(c.options)); err != nil {
				t.Fatal(err)
			}
			compat, incompat, roCompat := superblock(t, d, c.fsType)
			if compat&c.compat != 0 || incompat&c.incompat != 0 || roCompat&c.roCompat != 0 {
				t.Errorf("too much is on: compat %#x, incompat %#x, ro_compat %#x", compat, incompat, roCompat)
			}
			if (incompat|roCompat)&c.has != c.has {
				t.Errorf("too much is off: compat %#x, incompat %#x, ro_compat %#x", compat, incompat, roCompat)
			}
		})
	}
}

// configuredMke2fs is a directory with an mkfs.ext4 that has more features on.
func configuredMke2fs(t *testing.T, features string) (dir string) {
	t.Helper()
	real, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	conf := filepath.Join(dir, "mke2fs.conf")
	for name, text := range map[string]string{
		conf: "[defaults]\nbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr\n[fs_types]\next4 = {\n" +
			"features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize," + features + "\n}\n",
		filepath.Join(dir, "mkfs.ext4"): "#!/bin/sh\nMKE2FS_CONFIG=" + conf + " exec " + real + " \"$@\"\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil { //nolint:gosec // one is a program
			t.Fatal(err)
		}
	}
	return dir
}

// testDevice is a loop device for one test.
func testDevice(t *testing.T, size int64) *blockdev.Device {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // the loop device has it
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	l, err := blockdev.AttachLoop(t.Context(), f, blockdev.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := blockdev.Open(t.Context(), l.Path, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := blockdev.DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
			t.Error(err)
		}
	})
	return d
}
