package nfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

const stateVersion = 1

// nodeState is Source.State: what the node knows of an open volume.
type nodeState struct {
	Version int    `json:"v"`
	Server  string `json:"server,omitempty"` // host:port; "": a local directory
	Source  string `json:"source,omitempty"`
	Dir     string `json:"dir,omitempty"`
}

func (s *nodeState) encode() ([]byte, error) { return json.Marshal(s) }

// decodeState reads a state; nil, and an empty one of no server, when it was lost.
func decodeState(b []byte) (*nodeState, error) {
	s := &nodeState{}
	if len(b) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(b, s); err != nil || s.Version != stateVersion {
		return nil, unavailable("state of version %d, and this driver knows %d: another version of it has opened the volume (%w)", s.Version, stateVersion, err)
	}
	return s, nil
}

// lane is that of short tasks on mounts of this node.
func (s *nodeState) lane() lane { return lane{server: s.Server, name: laneNode, within: true} }

// OpenVolume says what to mount; it asks no server. A volume of a share with a
// server is mounted by itself, server:/export/subDir, so that its root is the root
// of a mount, which can be bound and unmounted when the server is dead. The kernel
// has one connection for all mounts of a server; what they share besides, see apart.
func (b *Backend) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	if err := b.serves(NodeHalf); err != nil {
		return nil, err
	}
	share, subDir, err := b.locate(req.ID, req.Context)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", req.ID, err)
	}
	if req.Capability.Block {
		return nil, fmt.Errorf("%w: volume %s is a directory, and no raw block device", backends.ErrInvalid, req.ID)
	}
	if t := req.Capability.FSType; t != "" && t != "nfs" && t != "nfs4" {
		return nil, fmt.Errorf("%w: volume %s is on NFS, and %s was asked for", backends.ErrInvalid, req.ID, t)
	}
	s := &nodeState{Version: stateVersion}
	src := &backends.Source{}
	if share.Server == "" {
		s.Dir = filepath.Join(share.LocalDir, subDir)
		src.Dir = s.Dir
	} else {
		o, err := parseOptions(share.Options, req.Capability.Flags.Reveal())
		if err != nil {
			return nil, fmt.Errorf("open volume %s: %w", req.ID, err)
		}
		s.Server, s.Source = serverKey(share.Server, o), share.source(subDir)
		src.Mount = &backends.Mount{Source: s.Source, FSType: "nfs", Options: withoutReadOnly(share.Options, req.Capability), Remote: true}
	}
	src.State, err = s.encode()
	return src, err
}

// withoutReadOnly leaves out the word "ro" of a share whose volume is for reading
// anyway: csikit mounts it so.
func withoutReadOnly(options []string, c backends.Capability) []string {
	if !c.Mode.ReadOnly() {
		return options
	}
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "ro" })
}

// CloseVolume has nothing to close: what was mounted is unmounted by now.
func (b *Backend) CloseVolume(context.Context, backends.CloseVolumeRequest) error {
	return b.serves(NodeHalf)
}

// VolumeStats asks the server in a worker.
func (b *Backend) VolumeStats(ctx context.Context, req backends.VolumeStatsRequest) (*backends.VolumeStats, error) {
	s, err := decodeState(req.State)
	if err != nil {
		return nil, err
	}
	st, err := call[backends.VolumeStats](ctx, b.workers, s.lane(), opStats, pathTask{Path: req.Path, Dir: s.Dir})
	switch {
	case isStale(err):
		return nil, unavailable("the volume's directory is gone on the server, or was replaced (%w): it is mounted anew when it is staged again", err)
	case err != nil:
		return nil, unavailable("%w", err)
	}
	return &st, nil
}

// What the health of a volume or a server says; the README of examples/nfs lists them.
const (
	reasonServer = "ServerUnreachable"
	reasonStale  = "StaleFileHandle"
	reasonRoot   = "RootUnreadable"
)

// NodeVolumeHealth looks at the volume's root, in a worker, and only while its server
// answers.
func (b *Backend) NodeVolumeHealth(ctx context.Context, req backends.NodeHealthRequest) ([]backends.Health, error) {
	s, err := decodeState(req.State)
	if err != nil {
		return nil, err
	}
	if len(req.State) == 0 && req.Path == "" {
		return nil, backends.VolumeNotFound(req.ID) // nothing of this name is on this node
	}
	if s.Server == "" || req.Path == "" {
		return b.serverHealth(ctx, s.Server), nil
	}
	_, err = call[struct{}](ctx, b.workers, s.lane(), opLook, pathTask{Path: req.Path})
	switch {
	case err == nil:
		return nil, nil
	case isStale(err):
		return []backends.Health{{Status: backends.HealthInaccessible, Reason: reasonStale, Message: err.Error()}}, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, backends.ErrUnavailable):
		return []backends.Health{{Status: backends.HealthInaccessible, Reason: reasonServer, Message: err.Error()}}, nil
	}
	return []backends.Health{{Status: backends.HealthInaccessible, Reason: reasonRoot, Message: err.Error()}}, nil
}

// serverHealth asks a server by the network, and touches no mount.
func (b *Backend) serverHealth(ctx context.Context, server string) []backends.Health {
	err := b.workers.breakers.state(server)
	if err == nil {
		err = b.workers.breakers.askFor(ctx, server)
	}
	if err == nil {
		return nil
	}
	return []backends.Health{{Status: backends.HealthInaccessible, Reason: reasonServer, Message: err.Error()}}
}

// StorageHealth asks the servers of the configured shares.
func (b *Backend) StorageHealth(ctx context.Context, _ backends.StorageHealthRequest) ([]backends.StorageHealth, error) {
	if err := b.serves(NodeHalf); err != nil {
		return nil, err
	}
	var dead []string
	seen := map[string]bool{}
	for _, share := range b.o.Shares {
		o, err := parseOptions(share.Options)
		if err != nil || share.Server == "" {
			continue
		}
		server := serverKey(share.Server, o)
		if seen[server] {
			continue
		}
		seen[server] = true
		for _, h := range b.serverHealth(ctx, server) {
			dead = append(dead, h.Message)
		}
	}
	if len(dead) == 0 {
		return nil, nil
	}
	return []backends.StorageHealth{{Status: backends.StorageUnreachable, Reason: reasonServer, Message: strings.Join(dead, "; ")}}, nil
}

var (
	_ backends.Node                 = (*Backend)(nil)
	_ backends.RemoteMounter        = (*Backend)(nil)
	_ backends.StatsReporter        = (*Backend)(nil)
	_ backends.NodeHealthChecker    = (*Backend)(nil)
	_ backends.StorageHealthChecker = (*Backend)(nil)
)
