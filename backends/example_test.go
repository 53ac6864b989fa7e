package backends_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/csikit/csikit/backends"
)

// dirs makes each volume a directory of one file system, and uses it on the same
// machine. This is a whole backend: both halves on one value. The os.Root keeps
// it inside, whatever a name looks like.
type dirs struct{ root *os.Root }

func (d dirs) Volume(_ context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	_, err := d.root.Stat(req.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist), !strings.HasPrefix(req.ID, "vol-"):
		return nil, backends.VolumeNotFound(req.ID)
	case err != nil: // an unreadable disk is not "the volume is gone"
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return &backends.Volume{ID: req.ID, Name: req.ID[len("vol-"):]}, nil
}

func (d dirs) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return d.Volume(ctx, backends.VolumeRequest{ID: "vol-" + req.Name})
}

func (d dirs) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	if err := d.root.Mkdir("vol-"+req.Name, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return d.FindVolume(ctx, req)
}

func (d dirs) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	if _, err := d.Volume(ctx, backends.VolumeRequest{ID: req.ID}); err != nil {
		return err
	}
	return d.root.RemoveAll(req.ID)
}

func (d dirs) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	_, err := d.Volume(ctx, backends.VolumeRequest{ID: req.ID})
	return &backends.Source{Dir: filepath.Join(d.root.Name(), req.ID)}, err
}

func (d dirs) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

var (
	_ backends.Controller = dirs{}
	_ backends.Node       = dirs{}
)

func Example() {
	dir, err := os.MkdirTemp("", "dirs")
	if err != nil {
		log.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.Remove(dir) }() // empty by then
	defer func() { _ = root.Close() }()   // nothing was written through it
	d, ctx := dirs{root}, context.Background()

	vol, err := d.CreateVolume(ctx, backends.CreateVolumeRequest{Name: "pvc-1"})
	fmt.Println(vol.ID, err)
	_, err = d.OpenVolume(ctx, backends.OpenVolumeRequest{ID: vol.ID})
	fmt.Println(err)
	fmt.Println(d.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: vol.ID}))
	_, err = d.Volume(ctx, backends.VolumeRequest{ID: vol.ID})
	fmt.Println(err, errors.Is(err, backends.ErrNotFound))
	fmt.Println("can expand:", backends.DetectController(d).Expander != nil)
	// Output:
	// vol-pvc-1 <nil>
	// <nil>
	// <nil>
	// volume "vol-pvc-1" not found true
	// can expand: false
}

// A filter takes back what this configuration cannot do: here a pool without thin
// provisioning has no cheap clones.
func ExampleControllerFilter() {
	thick, thin := pool{thin: false}, pool{thin: true}
	fmt.Println(backends.DetectController(thick).Cloner != nil)
	fmt.Println(backends.DetectController(thin).Cloner != nil)
	// Output:
	// false
	// true
}

type pool struct {
	dirs
	thin bool
}

func (p pool) CloneVolume(context.Context, backends.Volume, backends.CreateVolumeRequest) (*backends.Volume, error) {
	return nil, backends.ErrUnsupported
}

func (p pool) FilterController(f *backends.ControllerFeatures) {
	if !p.thin {
		f.Cloner = nil
	}
}

func ExampleSecrets() {
	s := backends.NewSecrets(map[string]string{"password": "hunter2"})
	fmt.Printf("%v %+v %#v\n", s, struct{ S backends.Secrets }{s}, s)
	password, ok := s.Lookup("password")
	fmt.Println(password, ok)
	// Output:
	// [redacted] {S:[redacted]} [redacted]
	// hunter2 true
}
