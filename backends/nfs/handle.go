package nfs

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"slices"
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
// with slashes at the ends of the export, and subDir, taken away; not those between.
// uuid is the PersistentVolume's name where the class has a subDir.
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

// errNoHandle says that no driver can have made an ID: there is no such volume.
var errNoHandle = errors.New("is no handle")

// parseHandle reads an ID of ours or of csi-driver-nfs. The error is errNoHandle, or
// ErrPrecondition for what may well be a volume of csi-driver-nfs, and not one that can
// be opened for certain: to call it "not found" would make the CO forget it.
func parseHandle(id string) (handle, error) {
	tag, rest, _ := strings.Cut(id, "#")
	switch tag {
	case volumeTag, snapshotTag, groupTag:
		if h, ok := parseOwn(tag, rest); ok {
			return h, nil
		}
		// A server may be called so.
		if parts := strings.Split(id, "#"); len(parts) != 5 || !slices.Contains(onDeletes, strings.ToLower(parts[4])) && parts[4] != "" {
			return handle{}, errNoHandle
		}
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

var (
	// oldLegacy is how csi-driver-nfs 2 and 3.0 wrote a handle: the server, an export of
	// any depth and a subdirectory of one component.
	oldLegacy = regexp.MustCompile(`^([^/]+)/(.*)/([^/]+)$`)
	// likeServer is what may have been one for csi-driver-nfs, which passes it on.
	likeServer = regexp.MustCompile(`^[\pL\pN_\[:][^\s\pC]*$`)
)

// legacyParts takes a handle of csi-driver-nfs apart, as that does; nil: it is none.
func legacyParts(id string) []string {
	parts := strings.Split(id, "#")
	if len(parts) < 3 {
		if parts = oldLegacy.FindStringSubmatch(id); parts == nil {
			return nil
		}
		parts = parts[1:]
	}
	if strings.Contains(id, "\x00") || !likeServer.MatchString(parts[0]) {
		return nil // nothing was ever mounted, or made, by such names
	}
	// Its documents call a PersistentVolume that is written by hand server/share##.
	if strings.Contains(parts[0], "/") && (parts[1] != "" || parts[2] != "") {
		return nil
	}
	return parts
}

func parseLegacy(id string) (handle, error) {
	parts := legacyParts(id)
	if parts == nil {
		return handle{}, errNoHandle
	}
	h, err := readLegacy(parts)
	if err != nil {
		return handle{}, fmt.Errorf("%w: %q may be a volume of csi-driver-nfs, and is left alone: %w (if it is none any more, delete its PersistentVolume)",
			backends.ErrPrecondition, id, err)
	}
	return h, nil
}

func readLegacy(parts []string) (h handle, err error) {
	if len(parts) > 5 {
		return h, errors.New("one of its parts has a # in it")
	}
	parts = append(parts, "", "")[:5]
	if !validServer(parts[0]) {
		return h, fmt.Errorf("%q is no name or address of one server", parts[0])
	}
	h.share.Server = parts[0]
	if h.share.Export, err = cleanExport("/" + parts[1]); err != nil {
		return h, fmt.Errorf("its share %w", err)
	}
	h.subDir = oneSlash(parts[2])
	switch err := checkSubDir(h.subDir); {
	case h.subDir == "":
		return h, errors.New("it is all of the share, with whatever else is there")
	case err != nil:
		return h, fmt.Errorf("its subDir %w", err)
	}
	if parts[3] != "" && !cleanComponent(parts[3]) {
		return h, fmt.Errorf("%q is no name of a PersistentVolume", parts[3])
	}
	switch h.onDelete = strings.ToLower(parts[4]); h.onDelete {
	case "", onDeleteDelete, onDeleteRetain, onDeleteArchive:
		return h, nil
	}
	return h, fmt.Errorf("what becomes of it when it is deleted, %q, is not known", parts[4])
}

// legacySnapshot tells IDs that csi-driver-nfs can have given to a snapshot: the server,
// the share, the snapshot's name twice, and the volume's.
func legacySnapshot(id string) bool {
	parts := legacyParts(id)
	return len(parts) == 5 && parts[2] == parts[3] && parts[2] != "" && parts[4] != ""
}

// surelyLegacy tells IDs of volumes that hardly anybody but csi-driver-nfs gives: five
// parts since its release 4.0, four before.
func surelyLegacy(id string) bool { return len(legacyParts(id)) >= 4 }
