package csidriver

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// nothing implements the two cores and no optional interface.
type nothing struct{}

func (nothing) Volume(context.Context, backends.VolumeRequest) (*backends.Volume, error) {
	return nil, backends.ErrUnsupported
}
func (nothing) FindVolume(context.Context, backends.CreateVolumeRequest) (*backends.Volume, error) {
	return nil, backends.ErrUnsupported
}
func (nothing) CreateVolume(context.Context, backends.CreateVolumeRequest) (*backends.Volume, error) {
	return nil, backends.ErrUnsupported
}
func (nothing) DeleteVolume(context.Context, backends.DeleteVolumeRequest) error {
	return backends.ErrUnsupported
}
func (nothing) OpenVolume(context.Context, backends.OpenVolumeRequest) (*backends.Source, error) {
	return nil, backends.ErrUnsupported
}
func (nothing) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// featured gives any set of features through filters.
type featured struct {
	nothing
	controller backends.ControllerFeatures
	node       backends.NodeFeatures
}

func (f *featured) FilterController(to *backends.ControllerFeatures) { *to = f.controller }
func (f *featured) FilterNode(to *backends.NodeFeatures)             { *to = f.node }

// anything has every optional interface by embedding them, and answers none.
type anything struct {
	backends.Attacher
	backends.Snapshotter
	backends.Cloner
	backends.PublishedNodesLister
	backends.SnapshotLister
	backends.Modifier
	backends.GroupSnapshotter
	backends.ChangedBlockTracker
	backends.HealthChecker
	backends.HealthLister
	backends.TargetPreparer
	backends.EphemeralProvisioner
	backends.NodeHealthChecker
	backends.StorageHealthChecker
	backends.VolumeIDer
	backends.SnapshotIDer
	backends.GroupSnapshotIDer
	backends.VolumeChecker
	backends.Expander
	backends.CapacityReporter
	backends.Recoverer
	backends.Prober
	backends.FormatRecorder
	backends.NodeExpander
	backends.StatsReporter
	backends.TopologyReporter
	backends.AttachLimiter
	backends.NodeRecoverer
}

func quietOptions() *Options {
	return &Options{NodeID: "n", Engine: newFakeEngine(), Logger: slog.New(slog.DiscardHandler)}
}

func plainConfig() Config {
	return Config{
		Name: "plain.csikit.dev", Version: "v1", Controller: nothing{}, Node: nothing{},
		Traits: backends.Traits{Modes: []backends.AccessMode{backends.SingleNodeWriter}, Filesystem: true, Lifecycle: backends.Persistent},
	}
}

func TestNewRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config, *Options, *featured)
		say    string
	}{
		"no name":             {func(c *Config, _ *Options, _ *featured) { c.Name = "" }, "Config.Name"},
		"long name":           {func(c *Config, _ *Options, _ *featured) { c.Name = strings.Repeat("a", 64) }, "Config.Name"},
		"underscore in name":  {func(c *Config, _ *Options, _ *featured) { c.Name = "a_b.c" }, "Config.Name"},
		"dash at the end":     {func(c *Config, _ *Options, _ *featured) { c.Name = "a.b-" }, "Config.Name"},
		"empty label":         {func(c *Config, _ *Options, _ *featured) { c.Name = "a..b" }, "Config.Name"},
		"long version":        {func(c *Config, _ *Options, _ *featured) { c.Version = strings.Repeat("v", 129) }, "Config.Version"},
		"no halves":           {func(c *Config, _ *Options, _ *featured) { c.Controller, c.Node = nil, nil }, "neither Controller nor Node"},
		"unknown services":    {func(c *Config, _ *Options, _ *featured) { c.Serve = 1 << 5 }, "unknown bits"},
		"serve no controller": {func(c *Config, _ *Options, _ *featured) { c.Controller, c.Serve = nil, ServeController }, "Config.Controller is nil"},
		"serve no node":       {func(c *Config, _ *Options, _ *featured) { c.Node, c.Serve = nil, ServeNode }, "Config.Node is nil"},
		"no modes":            {func(c *Config, _ *Options, _ *featured) { c.Traits.Modes = nil }, "Modes is empty"},
		"mode twice":          {func(c *Config, _ *Options, _ *featured) { c.Traits.Modes = append(c.Traits.Modes, c.Traits.Modes[0]) }, "SINGLE_NODE_WRITER twice"},
		"unknown mode":        {func(c *Config, _ *Options, _ *featured) { c.Traits.Modes = []backends.AccessMode{99} }, "99 is no access mode"},
		"no access type":      {func(c *Config, _ *Options, _ *featured) { c.Traits.Filesystem = false }, "neither Block nor Filesystem"},
		"block, no devices":   {func(c *Config, _ *Options, _ *featured) { c.Traits.Block = true }, "Block without Traits.Devices"},
		"no lifecycle":        {func(c *Config, _ *Options, _ *featured) { c.Traits.Lifecycle = 0 }, "Lifecycle is empty"},
		"unknown lifecycle":   {func(c *Config, _ *Options, _ *featured) { c.Traits.Lifecycle |= 8 }, "Lifecycle has unknown bits"},
		"ephemeral trait":     {func(c *Config, _ *Options, _ *featured) { c.Traits.Lifecycle |= backends.Ephemeral }, "no EphemeralProvisioner"},
		"ephemeral method":    {func(_ *Config, _ *Options, f *featured) { f.node.EphemeralProvisioner = anything{} }, "has no Ephemeral"},
		"ephemeral only":      {func(c *Config, _ *Options, _ *featured) { c.Traits.Lifecycle = backends.Ephemeral }, "Controller without Persistent"},
		"topology keys":       {func(c *Config, _ *Options, _ *featured) { c.Traits.TopologyKeys = []string{"a.b/zone"} }, "no TopologyReporter"},
		"topology method":     {func(_ *Config, _ *Options, f *featured) { f.node.TopologyReporter = anything{} }, "TopologyKeys is empty"},
		"topology key":        {func(c *Config, _ *Options, _ *featured) { c.Traits.TopologyKeys = []string{"A.b/zone"} }, "prefix is not a lower-case"},
		"topology name":       {func(c *Config, _ *Options, _ *featured) { c.Traits.TopologyKeys = []string{"a.b/zo ne"} }, "begins and ends"},
		"topology prefixes":   {func(c *Config, _ *Options, _ *featured) { c.Traits.TopologyKeys = []string{"a.b/zone", "b.b/rack"} }, "several prefixes"},
		"topology case":       {func(c *Config, _ *Options, _ *featured) { c.Traits.TopologyKeys = []string{"a.b/zone", "a.b/Zone"} }, "differ in case"},
		"format recorder":     {func(_ *Config, _ *Options, f *featured) { f.node.FormatRecorder = anything{} }, "FormatRecorder, Traits.Devices"},
		"node expander":       {func(_ *Config, _ *Options, f *featured) { f.node.NodeExpander = anything{} }, "NodeExpander, Traits.Devices"},
		"offline":             {func(c *Config, _ *Options, _ *featured) { c.Traits.OfflineExpand = true }, "OfflineExpand without an Expander"},
		"read-only attach":    {func(c *Config, _ *Options, _ *featured) { c.Traits.AttachReadOnly = true }, "without an Attacher"},
		"published nodes":     {func(_ *Config, _ *Options, f *featured) { f.controller.PublishedNodesLister = anything{} }, "no Attacher"},
		"published, unlisted": {func(_ *Config, _ *Options, f *featured) { f.controller.PublishedNodesLister = anything{} }, "no VolumeLister"},
		"health lister":       {func(_ *Config, _ *Options, f *featured) { f.controller.HealthLister = anything{} }, "no HealthChecker"},
		"changed blocks":      {func(_ *Config, _ *Options, f *featured) { f.controller.ChangedBlockTracker = anything{} }, "no Snapshotter"},
		"snapshot lister":     {func(_ *Config, _ *Options, f *featured) { f.controller.SnapshotLister = anything{} }, "no Snapshotter"},
		"snapshot IDs":        {func(_ *Config, _ *Options, f *featured) { f.controller.SnapshotIDer = anything{} }, "SnapshotIDer that is no Snapshotter"},
		"groups":              {func(_ *Config, _ *Options, f *featured) { f.controller.GroupSnapshotter = anything{} }, "GroupSnapshotter that is no Snapshotter"},
		"group IDs":           {func(_ *Config, _ *Options, f *featured) { f.controller.GroupSnapshotIDer = anything{} }, "no GroupSnapshotter"},
		"snapshot topology":   {func(c *Config, _ *Options, _ *featured) { c.Traits.SnapshotTopology = true }, "without a Snapshotter"},
		"negative size":       {func(c *Config, _ *Options, _ *featured) { c.Traits.SizeStep = -1 }, "SizeStep is negative"},
		"no possible size": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.SizeMin, c.Traits.SizeMax, c.Traits.SizeStep = 5, 7, 8
		}, "no size is at least"},
		"default too small": {func(c *Config, _ *Options, _ *featured) { c.Traits.SizeMin, c.Traits.SizeDefault = 5, 4 }, "less than SizeMin"},
		"default too big":   {func(c *Config, _ *Options, _ *featured) { c.Traits.SizeMax, c.Traits.SizeDefault = 5, 6 }, "more than SizeMax"},
		"default off step":  {func(c *Config, _ *Options, _ *featured) { c.Traits.SizeStep, c.Traits.SizeDefault = 4, 6 }, "no multiple of SizeStep"},
		"no file systems":   {func(c *Config, _ *Options, _ *featured) { c.Traits.Devices = true }, "without FSTypes"},
		"unknown fs":        {func(c *Config, _ *Options, _ *featured) { c.Traits.Devices, c.Traits.FSTypes = true, []string{"ntfs"} }, `"ntfs" is not one of`},
		"fs twice": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Devices, c.Traits.FSTypes = true, []string{"xfs", "xfs"}
		}, `"xfs" twice`},
		"fs without devices": {func(c *Config, _ *Options, _ *featured) { c.Traits.FSTypes = []string{"xfs"} }, "FSTypes without Devices"},
		"nameless parameter": {func(c *Config, _ *Options, _ *featured) { c.Traits.Parameters = []backends.Parameter{{}} }, "one has no name"},
		"parameter twice": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Parameters = []backends.Parameter{{Name: "a"}, {Name: "a"}}
		}, `"a" is there twice`},
		"parameter of the CO": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Parameters = []backends.Parameter{{Name: "csi.storage.k8s.io/x"}}
		}, "a name of Kubernetes"},
		"foreign default": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Parameters = []backends.Parameter{{Name: "a", Values: []string{"b"}, Default: "c"}}
		}, "none of its values"},
		"required default": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Parameters = []backends.Parameter{{Name: "a", Required: true, Default: "c"}}
		}, "has a default"},
		"mutable": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Parameters = []backends.Parameter{{Name: "a", Mutable: true}}
		}, "no Modifier"},
		"audience":       {func(c *Config, _ *Options, _ *featured) { c.Traits.Kubernetes.TokenAudiences = []string{"a", ""} }, "TokenAudiences"},
		"audiences":      {func(c *Config, _ *Options, _ *featured) { c.Traits.Kubernetes.TokenAudiences = []string{"a,b"} }, "TokenAudiences"},
		"same audience":  {func(c *Config, _ *Options, _ *featured) { c.Traits.Kubernetes.TokenAudiences = []string{"a", "a"} }, "TokenAudiences"},
		"host paths":     {func(c *Config, _ *Options, _ *featured) { c.Traits.Kubernetes.HostPaths = []string{"run/lock"} }, "HostPaths"},
		"fsGroup policy": {func(c *Config, _ *Options, _ *featured) { c.Traits.Kubernetes.FSGroupPolicy = "Always" }, "FSGroupPolicy"},
		"big manifest": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Kubernetes.TokenAudiences = []string{strings.Repeat("a", 5000)}
		}, "does not fit"},
		"no node ID": {func(_ *Config, o *Options, _ *featured) { o.NodeID = "" }, "NodeID is empty"},
		"mount group": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.MountGroup, c.Traits.Filesystem, c.Traits.Devices, c.Traits.Block = true, false, true, true
		}, "MountGroup without Filesystem"},
		"ephemeral blocks": {func(c *Config, _ *Options, _ *featured) {
			c.Traits.Lifecycle, c.Traits.Filesystem, c.Traits.Devices, c.Traits.Block = 3, false, true, true
		}, "an ephemeral volume is a mounted one"},
		"long node ID":       {func(_ *Config, o *Options, _ *featured) { o.NodeID = strings.Repeat("n", 257) }, "NodeID has more"},
		"no state directory": {func(_ *Config, o *Options, _ *featured) { o.Engine = nil }, "StateDir is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, o, f := plainConfig(), quietOptions(), new(featured)
			cfg.Controller, cfg.Node = f, f
			if _, err := New(cfg, o); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			tc.change(&cfg, o, f)
			_, err := New(cfg, o)
			if err == nil || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("error %v does not say %q", err, tc.say)
			}
		})
	}
}

func TestNewReportsEverything(t *testing.T) {
	cfg := plainConfig()
	cfg.Name, cfg.Traits.Modes, cfg.Traits.Lifecycle, cfg.Traits.SizeMin = "-", nil, 0, -1
	_, err := New(cfg, &Options{Logger: slog.New(slog.DiscardHandler)})
	for _, say := range []string{"Config.Name", "Modes", "Lifecycle", "SizeMin", "NodeID", "StateDir"} {
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q is missing in: %v", say, err)
		}
	}
}

func TestVersionAndAdvice(t *testing.T) {
	log := new(logBuffer)
	cfg, o := plainConfig(), quietOptions()
	cfg.Name, cfg.Version, o.NodeID = "Plain", "", strings.Repeat("n", 200)
	o.Logger = log.logger(slog.LevelWarn)
	d, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if d.cfg.Version == "" {
		t.Error("no version")
	}
	for _, say := range []string{"upper-case", "no dot", "128 bytes"} {
		if !strings.Contains(log.String(), say) {
			t.Errorf("the log does not say %q: %s", say, log)
		}
	}
}

func TestServeDefaults(t *testing.T) {
	for _, tc := range []struct {
		c    backends.Controller
		n    backends.Node
		want Services
	}{
		{nothing{}, nothing{}, ServeController | ServeNode},
		{nothing{}, nil, ServeController},
		{nil, nothing{}, ServeNode},
	} {
		cfg := Config{Controller: tc.c, Node: tc.n}
		complete(&cfg)
		if cfg.Serve != tc.want {
			t.Errorf("%v, %v: serves %b", tc.c, tc.n, cfg.Serve)
		}
	}
}
