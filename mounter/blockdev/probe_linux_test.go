package blockdev

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// mustProbe opens the device anew, as the node engine does.
func mustProbe(t testing.TB, path string) Content {
	t.Helper()
	d, err := Open(context.Background(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // read only
	c, err := d.Probe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProbeBlank(t *testing.T) {
	for _, size := range []int64{512, 4096, 100 << 10, 256 << 10, 1 << 20, 300<<20 + 512} {
		_, l, _ := loopDevice(t, size)
		if c := mustProbe(t, l.Path); c != (Content{State: Blank}) {
			t.Errorf("%d bytes: %v", size, c)
		}
	}
}

func TestProbeEmptyDevice(t *testing.T) {
	_, l, _ := loopDevice(t, 0)
	d := openDevice(t, l.Path)
	c, err := d.Probe(context.Background())
	mustBeKind(t, err, backends.ErrUnavailable, l.Path, "size")
	if c.State == Blank {
		t.Error("an empty device is blank")
	}
}

func TestProbeFindsEveryByteItReads(t *testing.T) {
	const size = 8 << 20
	_, l, f := loopDevice(t, size)
	for _, p := range plan(size) {
		for _, off := range []int64{p.lo, p.hi - 1, (p.lo + p.hi) / 2} {
			if _, err := f.WriteAt([]byte{1}, off); err != nil {
				t.Fatal(err)
			}
			if c := mustProbe(t, l.Path); c != (Content{State: Unknown, Offset: off}) {
				t.Errorf("a byte at %d: %v", off, c)
			}
			if _, err := f.WriteAt([]byte{0}, off); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The backing file is cut after it was attached: reads of what is gone are EIO,
// from the kernel, and blkid calls the device unformatted.
func TestProbeReadErrorIsNotBlank(t *testing.T) {
	for name, cut := range map[string]int64{"all": 0, "second half": 32 << 20, "tail": 64<<20 - 4096} {
		t.Run(name, func(t *testing.T) {
			d, l, f := loopDevice(t, 64<<20)
			if err := f.Truncate(cut); err != nil {
				t.Fatal(err)
			}
			c, err := d.Probe(context.Background())
			mustBeKind(t, err, unix.EIO, l.Path)
			mustBeKind(t, err, backends.ErrUnavailable)
			if c != (Content{}) {
				t.Errorf("content %v beside the error", c)
			}
		})
	}
}

// What another descriptor left in the page cache does not count.
func TestProbeIgnoresStalePages(t *testing.T) {
	d, l, f := loopDevice(t, 1<<20)
	if _, err := d.File().ReadAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("somebody's data"), 100); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	if _, err := d.File().ReadAt(b, 0); err != nil || b[100] != 0 {
		t.Fatalf("the cache is not stale, so this test shows nothing: %v, %q", err, b[100:115])
	}
	if c := mustProbe(t, l.Path); c != (Content{State: Unknown, Offset: 100}) {
		t.Errorf("%v", c)
	}
}

// The same without direct I/O.
func TestProbeBufferedIgnoresStalePages(t *testing.T) {
	d, _, f := loopDevice(t, 1<<20)
	if _, err := d.File().ReadAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("somebody's data"), 100); err != nil {
		t.Fatal(err)
	}
	c, err := probe(context.Background(), &freshReader{buffered: d.File()}, 1<<20)
	if err != nil || c != (Content{State: Unknown, Offset: 100}) {
		t.Errorf("%v, %v", c, err)
	}
}

// Dirty pages count: another program has written and not synced.
func TestProbeSeesDirtyPages(t *testing.T) {
	d, l, _ := loopDevice(t, 1<<20)
	if _, err := d.File().WriteAt([]byte{7}, 5000); err != nil {
		t.Fatal(err)
	}
	if c := mustProbe(t, l.Path); c != (Content{State: Unknown, Offset: 5000}) {
		t.Errorf("%v", c)
	}
}

// Blocks of 4096 bytes on a file that does not end with one.
func TestProbeBlockSize(t *testing.T) {
	testenv.Root(t)
	f := backingFile(t, 1<<20+512)
	l := attachFile(t, f, AttachOptions{BlockSize: 4096})
	d := openDevice(t, l.Path)
	size, err := d.Size()
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Probe(context.Background())
	if err == nil && c.State != Blank || err != nil && !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("of %d bytes: %v, %v", size, c, err)
	}
}

func TestProbeCancelled(t *testing.T) {
	d, _, _ := loopDevice(t, 1<<20)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Only the tail says that this disk is somebody's.
func TestProbeTailOnly(t *testing.T) {
	testenv.Tool(t, "sgdisk")
	const size = 64 << 20
	_, l, f := loopDevice(t, size)
	run(t, "sgdisk", "-n", "1:0:0", f.Name())
	if c := mustProbe(t, l.Path); c.State != Foreign || c.Type != "gpt" {
		t.Fatalf("whole: %v", c)
	}
	wipe(t, f, 0, 1<<20)
	c := mustProbe(t, l.Path)
	if c.State != Foreign || c.Type != "gpt" || c.Offset != size-512 || c.UUID == "" {
		t.Errorf("backup only: %v", c)
	}
	wipe(t, f, size-512, 512)
	if c := mustProbe(t, l.Path); c.State != Unknown || c.Offset < size-edge {
		t.Errorf("backup entries only: %v", c)
	}
}

func wipe(t *testing.T, f *os.File, off, n int64) {
	t.Helper()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0}, int(n)), off); err != nil {
		t.Fatal(err)
	}
}

// What its tool makes only on a block device.
func TestProbeToolsOnLoop(t *testing.T) {
	for _, m := range []made{
		{name: "lvm2", state: Foreign, typ: "LVM2_member", cmd: "pvcreate -qq --config devices{use_devicesfile=0} IMG"},
		{name: "bcache backing", state: Foreign, typ: "bcache", cmd: "make-bcache -B IMG"},
		{name: "bcache cache", state: Foreign, typ: "bcache", cmd: "make-bcache -C IMG"},
		{name: "drbd 8", state: Foreign, typ: "drbd", in: "yes\nyes\n", cmd: "drbdmeta --force 0 v08 IMG internal create-md"},
		{name: "drbd 9", state: Foreign, typ: "drbd", in: "yes\nyes\n", cmd: "drbdmeta --force 0 v09 IMG internal create-md 1"},
	} {
		t.Run(m.name, func(t *testing.T) {
			args := strings.Fields(m.cmd)
			testenv.Tool(t, args[0], "blkid")
			d, l, f := loopDevice(t, 128<<20)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			for i, a := range args {
				if a == "IMG" {
					args[i] = l.Path
				}
			}
			feed(t, m.in, args[0], args[1:]...)
			if c := mustProbe(t, l.Path); c.Type != m.typ {
				t.Errorf("on the device: %v", c)
			}
			checkMade(t, f.Name(), m)
		})
	}
}
