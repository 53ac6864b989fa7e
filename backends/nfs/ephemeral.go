package nfs

import (
	"context"
	"fmt"
	"strings"

	"github.com/csikit/csikit/backends"
)

// An inline volume is a new directory of a configured share, made and removed by the
// node. A pod's attributes are nobody's that is trusted: they name a configured share,
// and choose permissions; nothing else.
var ephemeralParams = map[string]bool{paramShare: true, paramServer: true, strings.ToLower(paramPermissions): true, paramUID: true, paramGID: true}

// ephemeralName is the name of a pod's volume: of no PersistentVolume.
func ephemeralName(id string) string { return "ephemeral\x00" + id }

// fromNode is the share as a node reaches it: LocalDir is the controller's, unless no
// server exports it.
func (s Share) fromNode() Share {
	if s.Server != "" {
		s.LocalDir = ""
	}
	return s
}

// CreateEphemeral makes the directory of a pod's inline volume.
func (b *Backend) CreateEphemeral(ctx context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	if err := b.serves(NodeHalf); err != nil {
		return nil, err
	}
	if !b.o.Ephemeral {
		return nil, fmt.Errorf("%w: inline volumes are not permitted", backends.ErrPermission)
	}
	p, err := b.parseParams(req.Parameters)
	if err != nil {
		return nil, err
	}
	for k := range req.Parameters {
		if !ephemeralParams[strings.ToLower(k)] {
			return nil, fmt.Errorf("%w: attribute %q is not for inline volumes", backends.ErrInvalid, k)
		}
	}
	s, err := b.resolve(p)
	if err != nil {
		return nil, err
	}
	if s.Name == "" {
		return nil, fmt.Errorf("%w: share %s is not configured, and inline volumes are on configured ones alone", backends.ErrPermission, s)
	}
	s = s.fromNode()
	name := ephemeralName(req.ID)
	h := handle{tag: volumeTag, share: s, key: keyOf(name)}
	in := makeIn{where: b.initWhere(), Mode: p.mode, UID: p.uid, GID: p.gid, Marker: marker{
		Key: h.key, Name: name, SubDir: "ephemeral-" + h.key, OnDelete: onDeleteDelete, Ephemeral: req.ID,
	}}
	out, err := onShare[findOut](ctx, b, s, "", opFind, findIn{b.initWhere(), h.key})
	if err != nil {
		return nil, err
	}
	if m := out.Marker; m != nil && m.State == stateReady {
		return b.public(m, s), nil
	}
	m, err := onShare[*marker](ctx, b, s, "", opMake, in)
	if err != nil {
		return nil, fmt.Errorf("inline volume %s: %w", req.ID, err)
	}
	return b.public(m, s), nil
}

// DeleteEphemeral removes it. When the driver died before its share was known, all
// configured ones are looked at.
func (b *Backend) DeleteEphemeral(ctx context.Context, req backends.DeleteEphemeralRequest) error {
	if err := b.serves(NodeHalf); err != nil {
		return err
	}
	shares := b.o.Shares
	if req.VolumeID != "" {
		h, err := b.decode(req.VolumeID, volumeTag, backends.VolumeNotFound(req.VolumeID))
		if err != nil {
			return err
		}
		shares = []Share{h.share}
	}
	key := keyOf(ephemeralName(req.ID))
	for _, s := range shares {
		s = s.fromNode()
		out, err := onShare[findOut](ctx, b, s, "", opFind, findIn{b.where(), key})
		if err != nil {
			return err
		}
		if out.Marker == nil || out.Marker.Ephemeral != req.ID {
			continue
		}
		if _, err := onShare[unmakeOut](ctx, b, s, "", opUnmake, unmakeIn{b.where(), key, false}); err != nil {
			return fmt.Errorf("inline volume %s: %w", req.ID, err)
		}
		b.purge(s)
	}
	return nil
}

// FilterNode takes back inline volumes where they are not permitted.
func (b *Backend) FilterNode(f *backends.NodeFeatures) {
	if !b.o.Ephemeral {
		f.EphemeralProvisioner = nil
	}
}

var (
	_ backends.EphemeralProvisioner = (*Backend)(nil)
	_ backends.NodeFilter           = (*Backend)(nil)
)
