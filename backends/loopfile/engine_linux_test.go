package loopfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

func engine(t testing.TB, b *Backend, dir string) *mounter.Engine {
	t.Helper()
	e, err := mounter.New(b, &mounter.Options{StateDir: dir, Logger: b.log, FSTypes: b.Traits().FSTypes, AllowVolatileState: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestLifeWithEngine is a volume's life as a CO asks for it, with the real node
// engine, and a driver that is started anew in the middle.
func TestLifeWithEngine(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) { lifeWithEngine(t, testOptions(t), fs, false) })
	}
}

// TestLifeWithEngineInVM: the host's ext4 cannot be grown while it is mounted.
func TestLifeWithEngineInVM(t *testing.T) {
	if !testenv.InVM(t, "1G") {
		return
	}
	o := testOptions(t)
	o.Pool = t.TempDir()
	run(t, "mkfs.ext4", "-q", "/dev/ubdb")
	run(t, "mount", "/dev/ubdb", o.Pool)
	t.Cleanup(func() { run(t, "umount", o.Pool) })
	t.Run("ext4", func(t *testing.T) { lifeWithEngine(t, o, "ext4", true) })
}

func lifeWithEngine(t *testing.T, o Options, fs string, online bool) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs."+fs)
	b := open(t, o)
	dir := t.TempDir()
	stateDir, staging, target := filepath.Join(dir, "state"), filepath.Join(dir, "staging"), filepath.Join(dir, "target")
	if err := os.Mkdir(staging, 0o755); err != nil {
		t.Fatal(err)
	}
	e := engine(t, b, stateDir)
	v := create(t, b, "v", 320*mib)
	stage := mounter.StageRequest{ID: v.ID, Path: staging, Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: fs}}
	publish := mounter.PublishRequest{ID: v.ID, StagingPath: staging, Path: target, Capability: stage.Capability}
	for range 2 {
		if err := errors.Join(e.Stage(t.Context(), stage), e.Publish(t.Context(), publish)); err != nil {
			t.Fatal(err)
		}
	}
	data := bytes.Repeat([]byte("data"), mib)
	file := filepath.Join(target, "f")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete while staged: %v", err)
	}
	if allocated(stat(t, imgPath(b, v.ID))) < 320*mib {
		t.Error("the thick volume has holes")
	}

	_ = e.Close()
	_ = b.Close()
	b = open(t, o)
	e = engine(t, b, stateDir)
	defer func() { _ = e.Close() }()
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete while staged, after a restart: %v", err)
	}
	if err := errors.Join(e.Stage(t.Context(), stage), e.Publish(t.Context(), publish)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
		t.Errorf("data after a restart: %d bytes, %v", len(got), err)
	}

	if fs != "ext4" || online {
		if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 400 * mib}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Expand(t.Context(), mounter.ExpandRequest{ID: v.ID, Path: target, StagingPath: staging, Range: backends.CapacityRange{Required: 400 * mib}}); err != nil {
			t.Error(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(target, &st); err != nil || grown(&st) < 330*mib {
			t.Errorf("file system has %d bytes after it was grown, %v", grown(&st), err)
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
			t.Errorf("data after it was grown: %d bytes, %v", len(got), err)
		}
	}
	for range 2 {
		err := errors.Join(e.Unpublish(t.Context(), mounter.UnpublishRequest{ID: v.ID, Path: target}),
			e.Unstage(t.Context(), mounter.UnstageRequest{ID: v.ID, Path: staging}))
		if err != nil {
			t.Fatal(err)
		}
	}
	if left := loopsOf(t, b, v.ID); len(left) > 0 {
		t.Errorf("attached to %q", left)
	}
	if s := openIt(t, b, v.ID, nil); s.Device.Format != backends.FormatDone || s.Device.FSType != fs {
		t.Errorf("format %v %q", s.Device.Format, s.Device.FSType)
	} else {
		closeIt(t, b, v.ID, s.State)
	}
	remove(t, b, v.ID)
	wantClean(t, o.Pool)
}

func grown(st *unix.Statfs_t) int64 {
	return int64(st.Blocks) * int64(st.Bsize) //nolint:unconvert // int32 on 386
}
