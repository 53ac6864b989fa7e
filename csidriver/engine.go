package csidriver

import (
	"context"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/mounter"
)

// Engine does the work of the node half: [mounter.Engine], or one of a test. Its
// errors are kinds of package backends.
type Engine interface {
	// Start cleans up what an earlier process left half-done. It is called once,
	// before any other method but InUse.
	Start(ctx context.Context) error
	Stage(ctx context.Context, req mounter.StageRequest) error
	Unstage(ctx context.Context, req mounter.UnstageRequest) error
	Publish(ctx context.Context, req mounter.PublishRequest) error
	Unpublish(ctx context.Context, req mounter.UnpublishRequest) error
	Expand(ctx context.Context, req mounter.ExpandRequest) (size int64, err error)
	Stats(ctx context.Context, req mounter.StatsRequest) (*mounter.Stats, error)
	// Health says what is wrong with a volume that stands here. ErrNotFound says that
	// none with this ID does.
	Health(ctx context.Context, req mounter.HealthRequest) ([]backends.Health, error)
	// InUse gives a path at which the volume is staged or published here.
	InUse(id string) (path string, used bool)
	// Release unstages a volume that was staged before a reboot of the node, and not
	// again since.
	Release(ctx context.Context, id string) error
	// State is what the backend gave with the volume when it was opened here
	// (backends.Source), nil when it is not known.
	State(id string) []byte
	// OwnID is the ID by which the backend knows a volume: another one than the
	// CO's when it is ephemeral.
	OwnID(id string) string
	Close() error
}

// makeEngine gives the driver its node engine, if it serves Node.
func (d *Driver) makeEngine() error {
	if d.cfg.Serve&ServeNode == 0 {
		return nil
	}
	if d.opts.Engine != nil {
		d.engine = d.opts.Engine
		return nil
	}
	engine, err := mounter.New(d.cfg.Node, d.engineOptions())
	if err != nil {
		return err
	}
	d.engine = engine
	d.tools = toolsFor(&d.cfg.Traits)
	return nil
}

// toolsFor are the programs that the node cannot do without: what makes the file
// system of a new volume when the CO names none. The tools of the others are
// missed when somebody asks for them.
func toolsFor(t *backends.Traits) []string {
	if !t.Devices || !t.Filesystem {
		return nil
	}
	if len(t.FSTypes) == 0 {
		return []string{"mkfs.ext4"}
	}
	return []string{"mkfs." + t.FSTypes[0]}
}

// missing names the first tool that is not there. One that was installed stays.
func (d *Driver) missing() error {
	if len(d.tools) == 0 || d.installed.Load() {
		return nil
	}
	look := command.New(nil)
	for _, tool := range d.tools {
		if err := look.Installed(tool); err != nil {
			return err
		}
	}
	d.installed.Store(true)
	return nil
}

func (d *Driver) engineOptions() *mounter.Options {
	o := &mounter.Options{
		StateDir: d.opts.StateDir, SharedDirs: d.opts.SharedDirs, Logger: d.logger, FSTypes: d.cfg.Traits.FSTypes,
		NoDevices: !d.cfg.Traits.Devices, Servers: d.opts.FUSEServers,
	}
	if observe := CommandObserver(d.opts.TracerProvider, d.opts.MeterProvider); observe != nil {
		o.Command = command.New(&command.Options{Logger: d.logger, Observer: observe})
	}
	return o
}

var _ Engine = (*mounter.Engine)(nil)
