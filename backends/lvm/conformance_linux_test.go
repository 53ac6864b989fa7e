package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/backendtest"
	"github.com/csikit/csikit/internal/testenv"
)

// devices reaches the bytes of volumes by their devices.
type devices struct{ b *Backend }

func (d devices) open(id string) (*os.File, error) {
	c, v, err := d.b.volume(context.Background(), id, kindVolume)
	if err != nil {
		return nil, err
	}
	path, err := d.b.activate(context.Background(), c, v)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
}

func (d devices) WriteAt(id string, p []byte, off int64) error {
	// Nobody writes to a volume that was never open.
	if _, err := d.b.OpenVolume(context.Background(), backends.OpenVolumeRequest{ID: id, Capability: backends.Capability{Block: true}}); err != nil {
		return err
	}
	f, err := d.open(id)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, off)
	return errors.Join(err, f.Close(), d.b.CloseVolume(context.Background(), backends.CloseVolumeRequest{ID: id}))
}

func (d devices) ReadAt(id string, p []byte, off int64) error {
	f, err := d.open(id)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(p, off)
	return err
}

// conformance is the suite on a VG that is emptied for each check.
func conformance(class string, block bool) backendtest.Config {
	begin := func(t testing.TB) backendtest.Backend {
		b := open(t, optionsFor(class))
		return backendtest.Backend{Controller: b, Node: b, Traits: b.Traits(), NodeID: "node-1"}
	}
	c := backendtest.Config{
		New: func(t testing.TB) backendtest.Backend {
			if !withKernel(t) {
				t.Skip("TestSuite has this one, over a fake lvm")
			}
			if class == "thin" {
				lvm(t, "lvremove", "-qq", "-ff", "-y", testVG)
				makePool(t)
			} else {
				emptyVG(t)
			}
			return begin(t)
		},
		Reopen: func(t testing.TB, b backendtest.Backend) backendtest.Backend {
			if err := b.Controller.(*Backend).Close(); err != nil {
				t.Fatal(err)
			}
			return begin(t)
		},
		Parameters: map[string]string{paramClass: class},
		Content:    func(b backendtest.Backend) backendtest.Content { return devices{b.Controller.(*Backend)} },
	}
	if block {
		c.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
	}
	return c
}

// withKernel names the checks that say something about lvm and the kernel which the
// fake cannot: the others (names, pages, moments at which a context ends) would run
// thousands of commands.
func withKernel(t testing.TB) bool {
	for _, check := range []string{"/content/", "/node/", "/open_volume/reopened", "/expand_volume_on_the_node/reopened", "/record_format/reopened"} {
		if strings.Contains(t.Name(), check) {
			return true
		}
	}
	return false
}

func TestConformance(t *testing.T) {
	if !testenv.InVM(t, "200M", "200M") {
		return
	}
	makeVG(t, "/dev/ubdb", "/dev/ubdc")
	t.Run("linear", func(t *testing.T) { backendtest.Run(t, conformance("linear", false)) })
	t.Run("thin", func(t *testing.T) { backendtest.Run(t, conformance("thin", true)) })
}

// TestConformanceOfProfiles runs the suite over each of the other profiles, in a boot of
// its own: some minutes each.
func TestConformanceOfProfiles(t *testing.T) {
	if os.Getenv("CSIKIT_LVM") != "all" {
		t.Skip("not asked for: make lvm")
	}
	for _, class := range []string{"striped", "raid1", "raid5", "raid6", "raid10"} {
		for _, block := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s block=%t", class, block), func(t *testing.T) {
				if !testenv.InVM(t, "160M", "160M", "160M", "160M", "160M") {
					return
				}
				makeVG(t, "/dev/ubdb", "/dev/ubdc", "/dev/ubdd", "/dev/ubde", "/dev/ubdf")
				backendtest.Run(t, conformance(class, block))
			})
		}
	}
}
