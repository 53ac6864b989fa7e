// Package walk leads one volume of a running driver through its life, as a CO
// does, by what the driver advertises: create, attach, stage, publish, write,
// expand, read back, and all of it backwards. It prints each RPC and what is seen.
//
// When something goes wrong it takes back what it did, in order, and names what
// it could not take back.
package walk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// Options say what is walked.
type Options struct {
	Controller grpc.ClientConnInterface
	Node       grpc.ClientConnInterface // nil: Controller has both services
	Out        io.Writer

	Name       string // of the volume
	Dir        string // an absolute path in which the volume's own directory is made
	FSType     string // "": the driver's choice
	Block      bool   // a raw block volume
	Parameters map[string]string
	Secrets    map[string]string
	Size       int64         // bytes; 0: none is asked for
	Timeout    time.Duration // of a call with its repetitions; 0: 2 min, as kubelet's

	// NoData: do not look for mounts, and write nothing: the driver is a mock.
	// Else data is written and compared where the volume can be seen.
	NoData bool
	// SameHost: what is published must be seen here.
	SameHost bool
	// Published, if not nil, is called while the volume is published and has data.
	Published func(ctx context.Context, w *Walk) error

	pause time.Duration // before a call is repeated for the first time
}

// Walk is a volume on its way.
type Walk struct {
	Printer

	o          Options
	controller csi.ControllerClient
	node       csi.NodeClient
	can        *capabilities
	info       *csi.NodeGetInfoResponse

	vol       *csi.Volume
	made      []string                 // ids of volumes that are not deleted
	doubt     *csi.CreateVolumeRequest // a volume may have been made
	attached  bool                     // or may be
	attach    map[string]string        // publish_context
	staged    bool                     // or may be
	published []string                 // or may be
	size      int64                    // that the volume has
	grow      bool                     // the node is still to expand it

	data data
}

// Run asks the driver what it can do and walks one volume.
func Run(ctx context.Context, o Options) error {
	if o.Node == nil {
		o.Node = o.Controller
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.pause == 0 {
		o.pause = 250 * time.Millisecond
	}
	w := &Walk{
		Printer: Printer{o.Out}, o: o, size: o.Size,
		controller: csi.NewControllerClient(o.Controller), node: csi.NewNodeClient(o.Node),
	}
	if err := w.ask(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(w.dir(), 0o750); err != nil {
		return err
	}
	err := w.steps(ctx)
	if err != nil {
		fmt.Fprintf(w.Out, "\nwrong: %v\n", err)
	}
	return errors.Join(err, w.cleanUp(ctx), w.removeDirs())
}

// steps is the life of a volume.
func (w *Walk) steps(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		w.create, w.validate, w.list,
		w.controllerPublish, w.stage, w.publishAndWrite, w.publishTwice, w.publishReadOnly,
		w.expandOnline, w.middle, w.compareAll, w.stats, w.unpublishAll, w.unstage, w.noMounts, w.controllerUnpublish,
		w.expandOffline, w.again, w.delete,
	} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: %w", err)
		}
	}
	return nil
}

func (w *Walk) middle(ctx context.Context) error {
	if w.o.Published == nil {
		return nil
	}
	return w.o.Published(ctx, w)
}

// again is the volume's second life: the data is there, and so is the size.
func (w *Walk) again(ctx context.Context) error {
	w.Section("the same volume for another pod")
	for _, step := range []func(context.Context) error{
		w.controllerPublish, w.stage, w.publishAgain, w.unpublishAll, w.unstage, w.noMounts, w.controllerUnpublish,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) dir() string             { return filepath.Join(w.o.Dir, w.o.Name) }
func (w *Walk) path(name string) string { return filepath.Join(w.dir(), name) }
func (w *Walk) id() string              { return w.vol.GetVolumeId() }

// stagingPath is where the volume is staged; "" if the driver does not stage.
func (w *Walk) stagingPath() string {
	if !w.can.node[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		return ""
	}
	return w.path("staging")
}

func (w *Walk) capability() *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}}
	if w.can.multiWriter() {
		c.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	if w.o.Block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: w.o.FSType}}
	}
	return c
}
