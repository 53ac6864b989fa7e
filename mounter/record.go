package mounter

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// recordVersion is the newest form that this engine understands. A record says
// the oldest form that its reader must understand: fields that may be ignored
// are added without a new version, so that an older driver still works with
// them; everything else gets a new number, and only in the records that use it.
const recordVersion = 4

// versionOf is the oldest form that knows a kind of record.
var versionOf = map[kind]int{kindStage: 1, kindPublish: 1, kindEphemeral: 2}

// versionMapping is the oldest form that knows Mapping: a reader that does not
// would take the device away below it.
const versionMapping = 3

// versionServer is the oldest form that knows Server: a reader that does not
// would leave it running.
const versionServer = 4

// version is the form of r.
func (r *record) version() int {
	if r.Server != nil {
		return versionServer
	}
	if r.Mapping != nil {
		return versionMapping
	}
	return versionOf[r.Kind]
}

type kind string

const (
	kindStage   kind = "stage"   // a volume at a staging path
	kindPublish kind = "publish" // a volume at a target path
	// kindEphemeral: a volume that was made for one target path, and goes with it.
	kindEphemeral kind = "ephemeral"
)

type phase string

const (
	// phaseOpening: OpenVolume may have run; its State is not known.
	phaseOpening phase = "opening"
	// phaseOpen: OpenVolume answered; nothing is known to be mounted.
	phaseOpen phase = "open"
	// phaseBinding: a target path was asked for; nothing is known to be bound.
	phaseBinding phase = "binding"
	// phaseReady: the kernel showed the mount, or the device of a block volume,
	// as it was asked for.
	phaseReady phase = "ready"
	// phaseClosing: unmounted; CloseVolume may have run.
	phaseClosing phase = "closing"
	// phaseCreating: CreateEphemeral may have run; what it made is not known.
	phaseCreating phase = "creating"
	// phaseCreated: CreateEphemeral answered; nothing is known to be mounted.
	phaseCreated phase = "created"
	// phaseDeleting: it is unpublished; DeleteEphemeral may have run.
	phaseDeleting phase = "deleting"
)

type sourceKind string

const (
	sourceDevice sourceKind = "device"
	sourceMount  sourceKind = "mount"
	sourceFUSE   sourceKind = "fuse"
	sourceDir    sourceKind = "dir"
)

// record is what the engine keeps of one volume at one path. No secrets.
type record struct {
	Version     int            `json:"version"`
	Kind        kind           `json:"kind"`
	Volume      string         `json:"volume"`
	Path        string         `json:"path"`
	StagingPath string         `json:"stagingPath,omitempty"` // publish: where it was staged
	BootID      string         `json:"bootID"`
	Phase       phase          `json:"phase"`
	Access      string         `json:"access"`           // "mount" or "block"
	Mode        string         `json:"mode"`             // CSI's name
	FSType      string         `json:"fsType,omitempty"` // as asked for
	ReadOnly    bool           `json:"readOnly,omitempty"`
	Flags       *digest        `json:"flags,omitempty"` // of the mount flags, which may hold secrets
	Group       string         `json:"group,omitempty"`
	Source      sourceKind     `json:"source,omitempty"`
	Device      *deviceRecord  `json:"device,omitempty"`
	Mapping     *deviceRecord  `json:"mapping,omitempty"` // what Device looks like unencrypted
	Mount       *mountRecord   `json:"mount,omitempty"`
	Server      *serverRecord  `json:"server,omitempty"`
	Dir         string         `json:"dir,omitempty"`
	Mounted     *mountedRecord `json:"mounted,omitempty"`
	Format      *formatRecord  `json:"format,omitempty"`
	State       []byte         `json:"state,omitempty"` // Source.State
	// Rebooted: a reboot has ended what it speaks of, and nobody has staged or
	// unstaged the volume since; an older reader waits for the CO.
	Rebooted bool `json:"rebooted,omitempty"`
	// Rebind: a dead FUSE mount was here, and the new one is to be bound in its
	// place; an older reader lets the CO do it.
	Rebind *rebindRecord `json:"rebind,omitempty"`

	// Of an ephemeral volume, whose Volume is the CO's ID. The staging record of
	// the same volume, whose Volume is the backend's own ID, has For.
	Own       string            `json:"own,omitempty"`       // the backend's ID of it
	Context   map[string]string `json:"context,omitempty"`   // Volume.Context
	Arguments *digest           `json:"arguments,omitempty"` // of the pod's volumeAttributes
	For       string            `json:"for,omitempty"`       // stage: the CO's ID
}

const (
	accessMount = "mount"
	accessBlock = "block"
)

// deviceRecord says which device, well enough to know it again.
type deviceRecord struct {
	Path       string `json:"path"`
	Num        uint64 `json:"num,omitempty"`
	DiskSeq    uint64 `json:"diskSeq,omitempty"`
	Size       int64  `json:"size,omitempty"`
	ReadOnly   bool   `json:"readOnly,omitempty"` // by itself, not by the engine
	Serial     string `json:"serial,omitempty"`
	WWID       string `json:"wwid,omitempty"`
	DMUUID     string `json:"dmUUID,omitempty"`
	BackingDev uint64 `json:"backingDev,omitempty"`
	BackingIno uint64 `json:"backingIno,omitempty"`
	Unverified string `json:"unverified,omitempty"`
}

// mountRecord is a backends.Mount without its options.
type mountRecord struct {
	Source string `json:"source"`
	FSType string `json:"fsType"`
	Remote bool   `json:"remote,omitempty"`
}

// serverRecord is how a FUSE file system is mounted. What its server is run with
// may hold secrets, and is not kept here.
type serverRecord struct {
	Options []string `json:"options,omitempty"` // of the mount
	IDMap   []idMap  `json:"idMap,omitempty"`
	Healing bool     `json:"healing,omitempty"` // the mount, if there is one, is dead or half made
}

// idMap is a backends.IDMap.
type idMap struct {
	Volume uint32 `json:"volume"`
	Node   uint32 `json:"node"`
	Count  uint32 `json:"count"`
}

// rebindRecord is how a bind was made: with which options of one mount.
type rebindRecord struct {
	Options []string `json:"options,omitempty"`
}

// mountedRecord is how the kernel showed the mount.
type mountedRecord struct {
	ID     int    `json:"id"`
	Dev    uint64 `json:"dev"`
	Root   string `json:"root"`
	FSType string `json:"fsType"`
}

// formatRecord is what is known of the file system on the device.
type formatRecord struct {
	State   string `json:"state"` // "started" or "done"
	FSType  string `json:"fsType"`
	BootID  string `json:"bootID"` // when it was started, or found
	DiskSeq uint64 `json:"diskSeq,omitempty"`
	// Growing is the UUID of an ext file system that is being grown, unmounted. An
	// older reader does not mend it.
	Growing string `json:"growing,omitempty"`
}

const (
	formatStarted = "started"
	formatDone    = "done"
)

// digest stands for mount flags, or for the attributes of an ephemeral volume:
// enough to compare them, and no more.
type digest struct {
	Salt []byte `json:"salt"`
	MAC  []byte `json:"mac"`
}

func newDigest(flags backends.Flags) *digest {
	if len(flags.Reveal()) == 0 {
		return nil
	}
	return digestOf(flags.Reveal())
}

func digestOf(list []string) *digest {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return &digest{Salt: salt, MAC: mac(salt, list)}
}

// matches reports whether flags are the ones that d was made of.
func (d *digest) matches(flags backends.Flags) bool {
	if d == nil {
		return len(flags.Reveal()) == 0
	}
	return d.stands(flags.Reveal())
}

// stands reports whether d was made of that list.
func (d *digest) stands(list []string) bool { return hmac.Equal(d.MAC, mac(d.Salt, list)) }

func mac(salt []byte, list []string) []byte {
	h := hmac.New(sha256.New, salt)
	for _, f := range list {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(f)))) // a hash does not fail
		_, _ = h.Write([]byte(f))
	}
	return h.Sum(nil)
}

func (r *record) block() bool { return r.Access == accessBlock }

// sameInstance reports whether Format speaks of the disk that the device is now.
func (r *record) sameInstance(boot string) bool {
	f, d := r.Format, r.Device
	return f != nil && d != nil && f.BootID == boot && f.DiskSeq != 0 && f.DiskSeq == d.DiskSeq
}

// cutShort reports whether an mkfs was begun on this very disk and did not end.
func (r *record) cutShort(boot string) bool {
	return r.sameInstance(boot) && r.Format.State == formatStarted
}

// clone copies what r points to, so that a record in the store never changes
// under a reader.
func (r *record) clone() *record {
	c := *r
	c.Flags, c.Device, c.Mount = copyOf(r.Flags), copyOf(r.Device), copyOf(r.Mount)
	c.Mapping, c.Server, c.Rebind = copyOf(r.Mapping), copyOf(r.Server), copyOf(r.Rebind)
	c.Mounted, c.Format, c.State = copyOf(r.Mounted), copyOf(r.Format), slices.Clone(r.State)
	c.Context, c.Arguments = maps.Clone(r.Context), copyOf(r.Arguments)
	return &c
}

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// identity is what was recorded of the device, without its size, which grows.
func (d *deviceRecord) identity() backends.Identity {
	return backends.Identity{
		Serial: d.Serial, WWID: d.WWID, DMUUID: d.DMUUID,
		BackingDev: d.BackingDev, BackingIno: d.BackingIno, Unverified: d.unverified(),
	}
}

func (d *deviceRecord) unverified() string {
	if d.Serial == "" && d.WWID == "" && d.DMUUID == "" && d.BackingIno == 0 && d.Unverified == "" {
		return "identified by a check of the backend's when it was staged"
	}
	return d.Unverified
}

func mountedAs(m mnt.Info) *mountedRecord {
	return &mountedRecord{ID: m.ID, Dev: m.Dev, Root: m.Root, FSType: m.FSType}
}

// is reports whether i is that mount, or another one of the same thing.
func (m *mountedRecord) is(i mnt.Info) bool {
	return m != nil && m.Dev == i.Dev && m.FSType == i.FSType && m.Root == i.Root
}

// wasRenamed reports whether i may be that mount with another root: it changes its
// name with the directory, and the id stays. It proves nothing: the id of a mount
// that is gone is the next one's.
func (m *mountedRecord) wasRenamed(i mnt.Info) bool {
	return m != nil && m.Dev == i.Dev && m.FSType == i.FSType && m.ID == i.ID
}

// shortHash names an id or a path in a file name.
func shortHash(s string) string {
	h := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h[:16]))
}

const recordSuffix = ".json"

// recordName is the file name of a record. The volume has a part of its own in
// it, so that an unreadable file still says which volume it is about.
func recordName(k kind, volume, path string) string {
	return string(k) + "-" + shortHash(volume) + "-" + shortHash(path) + recordSuffix
}

func (r *record) name() string { return recordName(r.Kind, r.Volume, r.Path) }

// volumeHashOf is the volume's part of a record's file name; "" when the name is
// not one.
func volumeHashOf(name string) string {
	base, ok := strings.CutSuffix(name, recordSuffix)
	parts := strings.Split(base, "-")
	if !ok || len(parts) != 3 || len(parts[1]) != 26 || len(parts[2]) != 26 {
		return ""
	}
	if versionOf[kind(parts[0])] == 0 {
		return ""
	}
	return parts[1]
}

func (r *record) encode() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "\t")
	return append(b, '\n'), err
}

// decodeRecord reads the record in a file of that name and refuses whatever it
// does not fully understand.
func decodeRecord(name string, b []byte) (*record, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("torn or foreign: %w", err)
	}
	switch {
	case v.Version < 1:
		return nil, errors.New("no record: it has no version")
	case v.Version > recordVersion:
		return nil, fmt.Errorf("version %d, and this driver knows up to %d: run the driver that wrote it, or a newer one", v.Version, recordVersion)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("torn or foreign: %w", err)
	}
	return &r, r.check(name)
}

func (r *record) check(name string) error {
	phases := map[kind][]phase{
		kindStage:     {phaseOpening, phaseOpen, phaseReady, phaseClosing},
		kindPublish:   {phaseBinding, phaseReady},
		kindEphemeral: {phaseCreating, phaseCreated, phaseReady, phaseDeleting},
	}[r.Kind]
	switch {
	case phases == nil:
		return fmt.Errorf("unknown kind %q", r.Kind)
	case r.name() != name:
		return fmt.Errorf("it speaks of volume %q at %s, whose record is %s", r.Volume, r.Path, r.name())
	case !slices.Contains(phases, r.Phase):
		return fmt.Errorf("unknown phase %q", r.Phase)
	case r.Access != accessMount && r.Access != accessBlock:
		return fmt.Errorf("unknown access %q", r.Access)
	case r.Kind == kindEphemeral && (r.Phase == phaseCreated || r.Phase == phaseReady) && r.Own == "":
		return fmt.Errorf("phase %q, and no ID of the backend's", r.Phase)
	case r.BootID == "":
		return errors.New("no boot id")
	case r.Source == sourceDevice && r.Device == nil, r.Source == sourceMount && r.Mount == nil, r.Source == sourceDir && r.Dir == "":
		return fmt.Errorf("source %q is not described", r.Source)
	case (r.Source == sourceFUSE) != (r.Server != nil), r.Source == sourceFUSE && r.Mount == nil:
		return fmt.Errorf("source %q and its server are not both described", r.Source)
	case !slices.Contains([]sourceKind{"", sourceDevice, sourceMount, sourceFUSE, sourceDir}, r.Source):
		return fmt.Errorf("unknown source %q", r.Source)
	case r.block() && r.Device == nil && (r.Kind == kindPublish || r.Phase == phaseOpen || r.Phase == phaseReady):
		return errors.New("a raw block volume, and no device of it")
	case r.Mapping != nil && r.Source != sourceDevice:
		return errors.New("a mapping of no device")
	case r.Format != nil && r.Format.State != formatStarted && r.Format.State != formatDone:
		return fmt.Errorf("unknown format state %q", r.Format.State)
	}
	return nil
}
