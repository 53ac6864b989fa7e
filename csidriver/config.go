package csidriver

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// complaints collects all that is wrong with a configuration.
type complaints []error

func (c *complaints) when(wrong bool, format string, args ...any) {
	if wrong {
		*c = append(*c, fmt.Errorf(format, args...))
	}
}

func (c *complaints) add(err error) {
	if err != nil {
		*c = append(*c, err)
	}
}

// check reports everything in which the configuration contradicts itself or CSI.
func (d *Driver) check() error {
	var c complaints
	c.identity(&d.cfg)
	c.halves(&d.cfg)
	c.features(d.features)
	c.sizes(&d.cfg.Traits)
	c.fileSystems(&d.cfg.Traits)
	c.parameters(d.cfg.Traits.Parameters, d.features.controller.Modifier != nil)
	c.kubernetes(&d.cfg.Traits)
	c.node(d)
	return errors.Join(c...)
}

func (c *complaints) identity(cfg *Config) {
	c.when(!domainName(cfg.Name, alphanumeric),
		"Config.Name %q is not a domain name of at most %d characters of [A-Za-z0-9.-], each label beginning and ending with one of [A-Za-z0-9]", cfg.Name, maxLength)
	c.when(!fits(cfg.Version, maxString), "Config.Version has more than %d bytes, or is not UTF-8", maxString)
}

func (c *complaints) halves(cfg *Config) {
	c.when(cfg.Controller == nil && cfg.Node == nil, "Config has neither Controller nor Node")
	c.when(cfg.Serve&^(ServeController|ServeNode) != 0, "Config.Serve has unknown bits")
	c.when(cfg.Serve&ServeController != 0 && cfg.Controller == nil, "Config.Serve asks for the Controller service, Config.Controller is nil")
	c.when(cfg.Serve&ServeNode != 0 && cfg.Node == nil, "Config.Serve asks for the Node service, Config.Node is nil")
}

func (c *complaints) features(f *features) {
	t, co, n := &f.traits, &f.controller, &f.node
	c.when(len(t.Modes) == 0, "Traits.Modes is empty")
	for i, m := range t.Modes {
		c.when(m < backends.SingleNodeWriter || m > backends.MultiNodeMultiWriter, "Traits.Modes: %d is no access mode", m)
		c.when(slices.Contains(t.Modes[:i], m), "Traits.Modes has %v twice", m)
	}
	c.when(!t.Block && !t.Filesystem, "Traits: neither Block nor Filesystem volumes")
	c.when(t.Block && !t.Devices, "Traits.Block without Traits.Devices: a raw block volume is a device")
	c.when(t.Lifecycle == 0, "Traits.Lifecycle is empty")
	c.when(t.Lifecycle&^(backends.Persistent|backends.Ephemeral) != 0, "Traits.Lifecycle has unknown bits")
	c.when(t.Lifecycle&backends.Ephemeral != 0 && f.hasNode && n.EphemeralProvisioner == nil, "Traits.Lifecycle has Ephemeral, the node is no EphemeralProvisioner")
	c.when(t.Lifecycle&backends.Ephemeral == 0 && n.EphemeralProvisioner != nil, "the node is an EphemeralProvisioner, Traits.Lifecycle has no Ephemeral")
	c.when(t.Lifecycle&backends.Persistent == 0 && f.hasControl, "Config.Controller without Persistent in Traits.Lifecycle")
	c.when(t.Lifecycle&backends.Ephemeral != 0 && !t.Filesystem, "Traits.Lifecycle has Ephemeral, and Filesystem is false: an ephemeral volume is a mounted one")
	c.when(t.MountGroup && !t.Filesystem, "Traits.MountGroup without Filesystem")
	c.when(f.topology() && f.hasNode && n.TopologyReporter == nil, "Traits.TopologyKeys, but the node is no TopologyReporter")
	c.when(!f.topology() && n.TopologyReporter != nil, "the node is a TopologyReporter, Traits.TopologyKeys is empty")
	c.when(!t.Devices && n.FormatRecorder != nil, "the node is a FormatRecorder, Traits.Devices is false")
	c.when(!t.Devices && n.NodeExpander != nil, "the node is a NodeExpander, Traits.Devices is false")
	c.when(t.OfflineExpand && co.Expander == nil, "Traits.OfflineExpand without an Expander")
	c.when(t.AttachReadOnly && co.Attacher == nil, "Traits.AttachReadOnly without an Attacher")
	c.when(co.PublishedNodesLister != nil && co.Attacher == nil, "a PublishedNodesLister that is no Attacher")
	c.when(co.PublishedNodesLister != nil && co.VolumeLister == nil, "a PublishedNodesLister that is no VolumeLister")
	c.when(co.HealthLister != nil && co.HealthChecker == nil, "a HealthLister that is no HealthChecker")
	c.when(co.ChangedBlockTracker != nil && co.Snapshotter == nil, "a ChangedBlockTracker that is no Snapshotter")
	c.when(co.SnapshotLister != nil && co.Snapshotter == nil, "a SnapshotLister that is no Snapshotter")
	c.when(co.SnapshotIDer != nil && co.Snapshotter == nil, "a SnapshotIDer that is no Snapshotter")
	c.when(co.GroupSnapshotter != nil && co.Snapshotter == nil, "a GroupSnapshotter that is no Snapshotter: its members could be neither looked up nor restored")
	c.when(co.GroupSnapshotIDer != nil && co.GroupSnapshotter == nil, "a GroupSnapshotIDer that is no GroupSnapshotter")
	c.when(t.SnapshotTopology && co.Snapshotter == nil, "Traits.SnapshotTopology without a Snapshotter")
	c.when(t.SnapshotTopology && !f.topology(), "Traits.SnapshotTopology without Traits.TopologyKeys")
	c.add(checkTopologyKeys(t.TopologyKeys))
}

func (c *complaints) sizes(t *backends.Traits) {
	for _, s := range []struct {
		name  string
		value int64
	}{
		{"SizeMin", t.SizeMin}, {"SizeMax", t.SizeMax}, {"SizeDefault", t.SizeDefault}, {"SizeStep", t.SizeStep},
	} {
		c.when(s.value < 0, "Traits.%s is negative", s.name)
	}
	if t.SizeMin < 0 || t.SizeMax < 0 || t.SizeDefault < 0 || t.SizeStep < 0 {
		return
	}
	smallest, ok := roundUp(t.SizeMin, t.SizeStep)
	c.when(t.SizeMax > 0 && (!ok || smallest > t.SizeMax), "Traits: no size is at least SizeMin %d, at most SizeMax %d and a multiple of SizeStep %d", t.SizeMin, t.SizeMax, t.SizeStep)
	c.when(t.SizeDefault > 0 && t.SizeDefault < t.SizeMin, "Traits.SizeDefault %d is less than SizeMin %d", t.SizeDefault, t.SizeMin)
	c.when(t.SizeMax > 0 && t.SizeDefault > t.SizeMax, "Traits.SizeDefault %d is more than SizeMax %d", t.SizeDefault, t.SizeMax)
	c.when(t.SizeStep > 1 && t.SizeDefault%t.SizeStep != 0, "Traits.SizeDefault %d is no multiple of SizeStep %d", t.SizeDefault, t.SizeStep)
}

// knownFS are the file systems that package mounter makes, checks and grows.
var knownFS = []string{"ext4", "xfs", "btrfs"}

func (c *complaints) fileSystems(t *backends.Traits) {
	c.when(t.Devices && t.Filesystem && len(t.FSTypes) == 0, "Traits.Devices and Filesystem without FSTypes")
	c.when(!t.Devices && len(t.FSTypes) > 0, "Traits.FSTypes without Devices: csikit makes no file system then")
	for i, fs := range t.FSTypes {
		c.when(!slices.Contains(knownFS, fs), "Traits.FSTypes: %q is not one of %s", fs, strings.Join(knownFS, ", "))
		c.when(slices.Contains(t.FSTypes[:i], fs), "Traits.FSTypes has %q twice", fs)
	}
}

func (c *complaints) parameters(list []backends.Parameter, modifies bool) {
	seen := make(map[string]bool)
	for _, p := range list {
		c.when(p.Name == "", "Traits.Parameters: one has no name")
		c.when(seen[p.Name], "Traits.Parameters: %q is there twice", p.Name)
		c.when(pbconv.IsCOKey(p.Name), "Traits.Parameters: %q is a name of Kubernetes", p.Name)
		c.when(p.Default != "" && p.Values != nil && !slices.Contains(p.Values, p.Default), "Traits.Parameters: the default of %q is none of its values", p.Name)
		c.when(p.Default != "" && p.Required, "Traits.Parameters: %q is required and has a default", p.Name)
		c.when(p.Mutable && !modifies, "Traits.Parameters: %q is mutable, the controller is no Modifier", p.Name)
		seen[p.Name] = true
	}
}

func (c *complaints) kubernetes(t *backends.Traits) {
	policies := []string{"", "ReadWriteOnceWithFSType", "File", "None"}
	k := &t.Kubernetes
	c.when(!slices.Contains(policies, k.FSGroupPolicy), "Traits.Kubernetes.FSGroupPolicy %q is not one of %s", k.FSGroupPolicy, strings.Join(policies[1:], ", "))
	for _, p := range k.HostPaths {
		c.when(!filepath.IsAbs(p) || strings.Contains(p, ","), "Traits.Kubernetes.HostPaths: %q is no absolute path, or has a comma", p)
	}
	for i, a := range k.TokenAudiences {
		c.when(a == "" || strings.Contains(a, ",") || slices.Contains(k.TokenAudiences[:i], a), "Traits.Kubernetes.TokenAudiences: %q is empty, has a comma, or is there twice", a)
	}
	c.when(!smallMap(manifest(t, true)), "Traits.Kubernetes does not fit into GetPluginInfo.manifest (%d bytes)", maxMap)
}

func (c *complaints) node(d *Driver) {
	c.when(d.opts.KubeletEndpoint != "" && !filepath.IsAbs(d.opts.KubeletEndpoint), "Options.KubeletEndpoint %q is no absolute path", d.opts.KubeletEndpoint)
	c.when(d.opts.KubeletEndpoint != "" && d.opts.KubeletRegistry == "", "Options.KubeletEndpoint without KubeletRegistry")
	c.when(d.opts.KubeletRegistry != "" && !filepath.IsAbs(d.opts.KubeletRegistry), "Options.KubeletRegistry %q is no absolute path", d.opts.KubeletRegistry)
	c.add(connectable("Options.KubeletEndpoint", d.opts.KubeletEndpoint))
	if d.opts.KubeletRegistry != "" {
		c.add(connectable("Options.KubeletRegistry: the socket there", registrationSocket(d)))
	}
	if d.cfg.Serve&ServeNode == 0 {
		c.when(d.opts.KubeletRegistry != "", "Options.KubeletRegistry, but Node is not served here")
		return
	}
	c.when(d.opts.NodeID == "", "Options.NodeID is empty; serving Node needs it")
	c.when(!fits(d.opts.NodeID, maxNodeID), "Options.NodeID has more than %d bytes, or is not UTF-8", maxNodeID)
	c.when(d.opts.StateDir == "" && d.opts.Engine == nil, "Options.StateDir is empty; serving Node needs it")
}

// advise logs what is allowed and will hurt.
func (d *Driver) advise() {
	name := d.cfg.Name
	if name != strings.ToLower(name) {
		d.logger.Warn("the driver's name has upper-case letters: Kubernetes has no CSIDriver object of that name", "name", name)
	}
	if !strings.Contains(name, ".") {
		d.logger.Warn("the driver's name has no dot: it may collide with another's", "name", name)
	}
	if d.cfg.Serve&ServeNode != 0 && len(d.opts.NodeID) > maxString {
		d.logger.Warn("the node ID has more than 128 bytes: older COs refuse it", "node_id", d.opts.NodeID)
	}
}

// buildVersion is what the Go toolchain noted of the program.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
