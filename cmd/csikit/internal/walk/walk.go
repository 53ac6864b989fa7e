// Package walk leads volumes of a running driver through their lives, as a CO
// does, by what the driver advertises: create, attach, stage, publish, write,
// expand, read back, and all of it backwards; then snapshots, clones, groups and
// whatever else there is. It prints each RPC and what is seen.
//
// When something goes wrong it takes back what it did, in order, names what it
// could not take back, and goes on with the next subject.
package walk

import (
	"context"
	"io"
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

	Name       string // of the volume; others have it as their prefix
	Dir        string // an absolute path in which the volumes' own directories are made
	FSType     string // "": the driver's choice
	Block      bool   // raw block volumes
	Parameters map[string]string
	Secrets    map[string]string
	Size       int64         // bytes; 0: none is asked for
	Timeout    time.Duration // of a call with its repetitions; 0: 2 min, as kubelet's

	// Mutable parameters for ControllerModifyVolume; none: it is not walked.
	Mutable map[string]string
	// Inline walks ephemeral volumes of pods, for which CSI has no capability, with
	// these attributes. Nil: they are not walked.
	Inline map[string]string
	// Only these subjects; none: all.
	Only []string

	// NoData: do not look for mounts, and write nothing: the driver is a mock.
	// Else data is written and compared where the volume can be seen.
	NoData bool
	// SameHost: what is published must be seen here.
	SameHost bool
	// Published, if not nil, is called while the volume is published and has data.
	Published func(ctx context.Context, v *Volume) error

	pause time.Duration // before a call is repeated for the first time
	// still: nobody writes while a group is cut. For storage that cannot hold up
	// writers, as package mem in directories.
	still bool
}

// Walk is a driver that is walked.
type Walk struct {
	Printer

	o          Options
	controller csi.ControllerClient
	groups     csi.GroupControllerClient
	metadata   csi.SnapshotMetadataClient
	node       csi.NodeClient
	can        *capabilities
	info       *csi.NodeGetInfoResponse

	made     []object  // what is there, the latest last
	contents []content // what was written in this subject
	unseen   bool      // in this subject: data could not be looked at
}

// Run asks the driver what it can do and walks it.
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
		Printer: Printer{o.Out}, o: o,
		controller: csi.NewControllerClient(o.Controller), groups: csi.NewGroupControllerClient(o.Controller),
		metadata: csi.NewSnapshotMetadataClient(o.Controller), node: csi.NewNodeClient(o.Node),
	}
	if err := w.ask(ctx); err != nil {
		return err
	}
	return w.walk(ctx)
}

func (v *Volume) dir() string             { return filepath.Join(v.o.Dir, v.name) }
func (v *Volume) path(name string) string { return filepath.Join(v.dir(), name) }
func (v *Volume) id() string              { return v.vol.GetVolumeId() }

// stagingPath is where the volume is staged; "" if the driver does not stage.
func (v *Volume) stagingPath() string {
	if !v.can.node[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		return ""
	}
	return v.path("staging")
}
