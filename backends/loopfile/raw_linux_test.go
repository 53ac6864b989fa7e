package loopfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// TestRawDataIsNotFormatted: what a program wrote to the raw device lies where no
// probe looks, and is not formatted over. A device that it left as it was is still
// a fresh one.
func TestRawDataIsNotFormatted(t *testing.T) {
	for _, typ := range []string{typeThick, typeThin} {
		for _, written := range []bool{false, true} {
			name := typ + " unwritten"
			if written {
				name = typ + " written"
			}
			t.Run(name, func(t *testing.T) {
				testenv.Root(t)
				o := testOptions(t)
				b := open(t, o)
				v := create(t, b, "v", 64*mib, "type", typ)
				dir := t.TempDir()
				e := engine(t, b, filepath.Join(dir, "state"))
				defer func() { _ = e.Close() }()
				raw := mounter.StageRequest{ID: v.ID, Path: filepath.Join(dir, "staging"), Capability: backends.Capability{Mode: backends.SingleNodeWriter, Block: true}}
				unstage := mounter.UnstageRequest{ID: v.ID, Path: raw.Path}
				target := filepath.Join(dir, "target")
				ctx := t.Context()
				if err := errors.Join(e.Stage(ctx, raw), e.Publish(ctx, mounter.PublishRequest{ID: v.ID, StagingPath: raw.Path, Path: target, Capability: raw.Capability})); err != nil {
					t.Fatal(err)
				}
				if written {
					f, err := os.OpenFile(target, os.O_RDWR, 0)
					if err != nil {
						t.Fatal(err)
					}
					_, err = f.WriteAt([]byte("a guest's"), 20*mib)
					if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(e.Unpublish(ctx, mounter.UnpublishRequest{ID: v.ID, Path: target}), e.Unstage(ctx, unstage)); err != nil {
					t.Fatal(err)
				}
				fs := raw
				fs.Capability = backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"}
				for range 2 {
					if err := e.Stage(ctx, fs); (err != nil) != written {
						t.Errorf("stage of a volume with data: %v", err)
					}
				}
				if written {
					got := make([]byte, 9)
					f, err := os.Open(imgPath(b, v.ID))
					if err == nil {
						_, err = f.ReadAt(got, 20*mib)
						_ = f.Close()
					}
					if err != nil || string(got) != "a guest's" {
						t.Errorf("read back %q, %v", got, err)
					}
				}
				if err := e.Unstage(ctx, unstage); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestCloseAfterRestore: the image was restored from a copy while it was open, so
// the loop device is on a file that the volume does not have any more. It goes
// all the same.
func TestCloseAfterRestore(t *testing.T) {
	b := openNode(t, testOptions(t))
	v := create(t, b, "v", 8*mib)
	s := openIt(t, b, v.ID, nil)
	img := imgPath(b, v.ID)
	old := stat(t, img)
	text, err := os.ReadFile(img)
	if err == nil {
		err = errors.Join(os.WriteFile(img+".copy", text, 0o600), os.Rename(img+".copy", img))
	}
	if err != nil {
		t.Fatal(err)
	}
	closeIt(t, b, v.ID, s.State)
	loops, err := blockdev.LoopOf(device(old), inode(old))
	if err != nil || len(loops) > 0 {
		t.Errorf("left attached: %+v, %v", loops, err)
		_ = blockdev.DetachLoop(t.Context(), s.Device.Path, device(old), inode(old))
	}
}
