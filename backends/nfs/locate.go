package nfs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/csikit/csikit/backends"
)

// locate says where a volume lies, by what the node was given of it; no I/O. The
// directory is "" for a whole share, which only a volume that was written by hand is.
func (b *Backend) locate(id string, context map[string]string) (s Share, subDir string, err error) {
	h, err := b.parse(id)
	ours := err == nil
	if len(context) == 0 && errors.Is(err, backends.ErrPrecondition) {
		return Share{}, "", err
	}
	if len(context) == 0 && (!ours || !h.legacy()) {
		// No volume comes without: this is the ID of none that a node can find.
		return Share{}, "", backends.VolumeNotFound(id)
	}
	c := make(map[string]string, len(context))
	for k, v := range context {
		c[strings.ToLower(k)] = v
	}
	if key := c[strings.ToLower(ctxKey)]; key != "" && (!ours || h.key != key) {
		return Share{}, "", backends.VolumeNotFound(id)
	}
	options, err := splitMountOptions(c[strings.ToLower(ctxOptions)])
	if err != nil {
		return Share{}, "", fmt.Errorf("%w: volume context: %w", backends.ErrInvalid, err)
	}
	if subDir = oneSlash(strings.Trim(c[strings.ToLower(ctxSubDir)], "/")); subDir != "" {
		if err := checkSubDir(subDir); err != nil {
			return Share{}, "", fmt.Errorf("%w: volume context: subDir: %w", backends.ErrInvalid, err)
		}
	}
	p := params{server: c[ctxServer], share: c[ctxShare], options: options}
	switch {
	case ours && h.tag == volumeTag && subDir == "":
		return Share{}, "", fmt.Errorf("%w: volume context has no subDir", backends.ErrInvalid)
	case ours && h.legacy() && p.server == "" && p.share == "":
		p.server, p.share, subDir = h.share.Server, h.share.Export, h.subDir
	case p.server == "" && p.share == "":
		return Share{}, "", fmt.Errorf("%w: volume context has neither server nor share", backends.ErrInvalid)
	}
	s, err = b.resolve(p)
	return s, subDir, err
}

func joinOptions(list []string) string { return strings.Join(list, ",") }
