package nfs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// Parameters of a class. All but those marked ours are csi-driver-nfs's, which reads
// them in any case; its documents write the names as here.
const (
	paramServer      = "server"
	paramShare       = "share"
	paramSubDir      = "subDir"
	paramOnDelete    = "onDelete"
	paramPermissions = "mountPermissions"
	paramOptions     = "mountOptions"
	paramUID         = "uid"   // ours
	paramGID         = "gid"   // ours
	paramAdopt       = "adopt" // ours

	onDeleteDelete  = "delete"
	onDeleteRetain  = "retain"
	onDeleteArchive = "archive"
)

var onDeletes = []string{onDeleteDelete, onDeleteRetain, onDeleteArchive}

// parameters are those of Traits. Names in lower case are there because
// csi-driver-nfs takes them.
func parameters() []backends.Parameter {
	list := []backends.Parameter{
		{Name: paramServer, Doc: "the NFS server; with share the path that it exports, else share is the name of a configured share"},
		{Name: paramShare, Doc: "the exported path, or the name of a configured share; \"\": the first configured one"},
		{Name: paramSubDir, Doc: "where the volume lies on the share, with ${pvc.metadata.name}, ${pvc.metadata.namespace} and ${pv.metadata.name}; \"\": the volume's name"},
		{Name: paramOnDelete, Values: onDeletes, Doc: "what becomes of a deleted volume's directory"},
		{Name: paramPermissions, Doc: "mode of a new volume's directory, in octal; \"\" or 0: 0755"},
		{Name: paramOptions, Doc: "mount options of the share, separated by commas; also as a secret, for calls that get no parameters"},
		{Name: paramUID, Doc: "owner of a new volume's directory"},
		{Name: paramGID, Doc: "group of a new volume's directory"},
		{Name: paramAdopt, Values: []string{"true", "false"}, Doc: "true: subDir may be there already, and nobody's; what is in it becomes the volume's, and goes with it"},
	}
	for _, p := range list {
		if lower := strings.ToLower(p.Name); lower != p.Name {
			list = append(list, backends.Parameter{Name: lower, Values: p.Values, Doc: "as " + p.Name})
		}
	}
	return list
}

// params are the parameters of a class, read.
type params struct {
	server, share string
	subDir        string
	onDelete      string
	mode          uint32 // permission bits; 0: not given
	uid, gid      int    // -1: not given
	options       []string
	adopt         bool
}

// parseParams reads the parameters of a class. Every mistake is ErrInvalid.
func (b *Backend) parseParams(in map[string]string) (params, error) {
	p := params{onDelete: b.o.OnDelete, uid: -1, gid: -1}
	seen := map[string]bool{}
	var errs []error
	for k, v := range in {
		lower := strings.ToLower(k)
		if seen[lower] {
			errs = append(errs, fmt.Errorf("%q is given twice", k))
		}
		seen[lower] = true
		if err := p.set(lower, v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", k, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return params{}, fmt.Errorf("%w: parameters: %w", backends.ErrInvalid, err)
	}
	return p, nil
}

// set reads one; key is in lower case.
func (p *params) set(key, v string) (err error) {
	switch key {
	case paramServer:
		if p.server = v; v != "" && !validServer(v) {
			err = fmt.Errorf("%q is no host name and no address", v)
		}
	case paramShare:
		p.share = v
	case strings.ToLower(paramSubDir):
		p.subDir = v
	case strings.ToLower(paramOnDelete):
		err = p.setOnDelete(v)
	case strings.ToLower(paramPermissions):
		err = p.setMode(v)
	case strings.ToLower(paramOptions):
		p.options, err = splitMountOptions(v)
	case paramUID:
		p.uid, err = parseID(v)
	case paramGID:
		p.gid, err = parseID(v)
	case paramAdopt:
		p.adopt, err = strconv.ParseBool(v)
	default:
		err = errors.New("is not known")
	}
	return err
}

func (p *params) setOnDelete(v string) error {
	switch lower := strings.ToLower(v); lower {
	case "":
	case onDeleteDelete, onDeleteRetain, onDeleteArchive:
		p.onDelete = lower
	default:
		return fmt.Errorf("%q: want one of %q", v, onDeletes)
	}
	return nil
}

func (p *params) setMode(v string) error {
	if v == "" {
		return nil
	}
	mode, err := strconv.ParseUint(v, 8, 32)
	if err != nil || mode > 0o7777 {
		return fmt.Errorf("%q is no mode in octal", v)
	}
	p.mode = uint32(mode)
	return nil
}

func parseID(v string) (int, error) {
	id, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return -1, fmt.Errorf("%q is no number of a user or group", v)
	}
	return int(id), nil
}

// splitMountOptions reads options with commas between them.
func splitMountOptions(v string) ([]string, error) {
	if strings.TrimSpace(v) == "" {
		return nil, nil
	}
	var list []string
	for o := range strings.SplitSeq(v, ",") {
		list = append(list, strings.TrimSpace(o))
	}
	return list, checkMountOptions(list)
}

// resolve is the share that parameters name.
func (b *Backend) resolve(p params) (Share, error) {
	if p.server == "" {
		switch {
		case p.share == "" && len(b.o.Shares) > 0:
			return b.o.Shares[0].with(p.options), nil
		case strings.HasPrefix(p.share, "/"), p.share == "":
			return Share{}, fmt.Errorf("%w: parameter server is missing", backends.ErrInvalid)
		}
		if s, ok := b.configured(p.share); ok {
			return s.with(p.options), nil
		}
		return Share{}, fmt.Errorf("%w: share %q is not configured", backends.ErrInvalid, p.share)
	}
	export, err := cleanExport(p.share)
	if err != nil {
		return Share{}, fmt.Errorf("%w: parameter share: %w", backends.ErrInvalid, err)
	}
	s, err := b.known(Share{Server: p.server, Export: export})
	if err != nil {
		return Share{}, fmt.Errorf("%w: %w", backends.ErrInvalid, err)
	}
	return s.with(p.options), nil
}

// with is the share with more mount options.
func (s Share) with(options []string) Share {
	if len(options) > 0 {
		s.Options = append(slices.Clip(s.Options), options...)
	}
	return s
}

func (b *Backend) configured(name string) (Share, bool) {
	for _, s := range b.o.Shares {
		if s.Name == name {
			return s, true
		}
	}
	return Share{}, false
}

// known is the configured share that is the same export as s, or s itself with
// AnyShare.
func (b *Backend) known(s Share) (Share, error) {
	for _, have := range b.o.Shares {
		if have.same(s) {
			return have, nil
		}
	}
	if !b.o.AnyShare {
		return Share{}, fmt.Errorf("share %s is not configured", s)
	}
	return s, nil
}
