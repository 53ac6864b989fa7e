package nfs

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"

	"github.com/csikit/csikit/backends"
)

// A volume's handle is
//
//	n1#<share name>#<key>            of a configured share
//	n1#<server>:<export>#<key>       of another one (AnyShare)
//
// and a snapshot's begins with s1 instead. csi-driver-nfs's are
//
//	<server>#<export>#<subDir>[#<uuid>[#<onDelete>]]
//	<server>/<export>/<subDir>       before its 3.1
//
// with slashes at the ends of the export, and subDir, taken away.
const (
	volumeTag   = "n1"
	snapshotTag = "s1"
	groupTag    = "g1"
	maxHandle   = 128 // bytes, by CSI
)

var keyRule = regexp.MustCompile(`^[a-z2-7]{26}$`)

// keyOf is what a name is called on a share: any Unicode name becomes one component.
func keyOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:26]
}

// handle is a decoded ID.
type handle struct {
	tag   string
	share Share // Name alone, or Server and Export
	key   string

	// Of csi-driver-nfs: then tag and key are empty.
	subDir, onDelete string
}

func (h handle) legacy() bool { return h.tag == "" }

// String is the ID. A handle of csi-driver-nfs is not written again.
func (h handle) String() string {
	where := h.share.Name
	if where == "" {
		where = h.share.Server + ":" + h.share.Export
	}
	return h.tag + "#" + where + "#" + h.key
}

// fits says when CSI has no room for an ID.
func (h handle) fits() error {
	if len(h.String()) <= maxHandle {
		return nil
	}
	return fmt.Errorf("%w: %s: the handle of a volume there would have more than %d bytes: give the share a name in the driver's configuration",
		backends.ErrInvalid, h.share, maxHandle)
}

// parseHandle reads an ID of ours or, if legacy, of csi-driver-nfs. ok is false for
// everything that neither can have made.
func parseHandle(id string, legacy bool) (h handle, ok bool) {
	tag, rest, _ := strings.Cut(id, "#")
	switch tag {
	case volumeTag, snapshotTag, groupTag:
		return parseOwn(tag, rest)
	}
	if !legacy {
		return handle{}, false
	}
	return parseLegacy(id)
}

func parseOwn(tag, rest string) (h handle, ok bool) {
	i := strings.LastIndexByte(rest, '#')
	if i < 0 {
		return handle{}, false
	}
	h = handle{tag: tag, key: rest[i+1:]}
	where := rest[:i]
	if !keyRule.MatchString(h.key) {
		return handle{}, false
	}
	if shareName.MatchString(where) {
		h.share.Name = where
		return h, true
	}
	i = strings.Index(where, ":/")
	if i < 0 {
		return handle{}, false
	}
	h.share.Server, h.share.Export = where[:i], where[i+1:]
	clean, err := cleanExport(h.share.Export)
	return h, err == nil && clean == h.share.Export && validServer(h.share.Server)
}

// oldLegacy is how csi-driver-nfs 2 and 3.0 wrote a handle: the server, an export of
// any depth and a subdirectory of one component.
var oldLegacy = regexp.MustCompile(`^([^/#]+)/([^#]*)/([^/#]+)$`)

func parseLegacy(id string) (h handle, ok bool) {
	parts := strings.Split(id, "#")
	if m := oldLegacy.FindStringSubmatch(id); len(parts) == 1 && m != nil {
		parts = m[1:]
	}
	if len(parts) < 3 || len(parts) > 5 || !validServer(parts[0]) {
		return handle{}, false
	}
	export, err := cleanExport("/" + parts[1])
	if err != nil {
		return handle{}, false
	}
	h.share.Server, h.share.Export = parts[0], export
	// It trims slashes itself when it makes a handle: what has some is not its own.
	if h.subDir = parts[2]; checkSubDir(h.subDir) != nil {
		return handle{}, false
	}
	if len(parts) == 5 {
		h.onDelete = strings.ToLower(parts[4])
	}
	switch h.onDelete {
	case "":
		h.onDelete = onDeleteDelete
	case onDeleteDelete, onDeleteRetain, onDeleteArchive:
	default:
		return handle{}, false
	}
	return h, len(parts) < 4 || cleanComponent(parts[3]) || parts[3] == ""
}
