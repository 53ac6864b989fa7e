package mounter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/csikit/csikit/backends"
)

// Marks in a LUKS2 header (its subsystem field), by which csikit knows what it
// made. LUKSNew is written by luksFormat with the header: nothing inside was ever
// shown to anybody. LUKSUsed: there is a file system inside, or somebody's data.
const (
	LUKSNew  = "csikit.new"
	LUKSUsed = "csikit.used"
)

// ErrWrongKey is what a [LUKS] answers when a key opens no slot.
var ErrWrongKey = errors.New("no key available with this passphrase")

// LUKS is the part of [Kernel] for encrypted devices: cryptsetup, the headers that
// it writes, and the device-mapper's devices. Keys are never in an argument list.
type LUKS interface {
	// LUKSHeader reads the header of a device that has one, or the ruins of one.
	LUKSHeader(ctx context.Context, d Device) (LUKSHeader, error)
	// LUKSFormat makes a header with the mark LUKSNew, over whatever is there.
	LUKSFormat(ctx context.Context, d Device, e backends.Encryption) error
	// LUKSMark changes the mark, durably.
	LUKSMark(ctx context.Context, d Device, mark string) error
	// LUKSOpen opens a device, or tries a key, and says which slot that opened. A
	// key that opens none is ErrWrongKey.
	LUKSOpen(ctx context.Context, r LUKSOpenRequest) (slot int, err error)
	// LUKSAddKey adds e.Key by means of e.PreviousKey.
	LUKSAddKey(ctx context.Context, d Device, e backends.Encryption) error
	// LUKSRemoveKey empties a slot; key opens another one.
	LUKSRemoveKey(ctx context.Context, d Device, slot int, key backends.Secret) error
	// LUKSResize makes an open mapping as big as its device.
	LUKSResize(ctx context.Context, name string) error
	// LUKSClose closes a mapping. One that is not open is no error.
	LUKSClose(ctx context.Context, name string) error
	// LUKSMappings lists the device-mapper's devices whose name begins so.
	LUKSMappings(prefix string) ([]LUKSMapping, error)
}

// LUKSOpenRequest is one device to open, or one key to try.
type LUKSOpenRequest struct {
	Device            Device
	Name              string // of the mapping
	Key               backends.Secret
	ReadOnly, Discard bool
	Test              bool // try the key, and open nothing
}

// LUKSMapping is an open device of the device-mapper.
type LUKSMapping struct {
	Name, Path string
	UUID       string   // the device-mapper's
	Num        uint64   // as unix.Mkdev makes it
	On         []uint64 // the devices below
}

// LUKSHeader is what a device says of its encryption.
type LUKSHeader struct {
	Valid   bool // a whole header was found; false: only parts of one
	Version int
	UUID    string
	Mark    string // LUKSNew, LUKSUsed, or "" when the header is not csikit's
	Slots   []int  // those that hold a key
	Offset  int64  // where the data begins
	Length  int64  // of the data; 0: to the end of the device
	Sector  int64  // encryption sector
}

func (h LUKSHeader) String() string {
	if !h.Valid {
		return "no whole LUKS header"
	}
	return fmt.Sprintf("a LUKS%d header, uuid %s, mark %q, %d keys", h.Version, h.UUID, h.Mark, len(h.Slots))
}

// room is the size of the mapping on a device of that size.
func (h LUKSHeader) room(size int64) int64 {
	room := max(size-h.Offset, 0)
	if h.Length > 0 {
		room = min(room, h.Length)
	}
	return room &^ (max(h.Sector, 512) - 1)
}

// dmUUID is the device-mapper's UUID of a mapping that cryptsetup made.
func (h LUKSHeader) dmUUID(name string) string {
	return fmt.Sprintf("CRYPT-LUKS%d-%s-%s", h.Version, strings.ReplaceAll(h.UUID, "-", ""), name)
}

const mapperDir = "/dev/mapper/"

// mappingName is the name of a volume's mapping. The volume alone would not tell
// two drivers on a node apart, nor the UUID alone a clone from its source. With no
// UUID it is the beginning of all the names of the volume.
func mappingName(volume, uuid string) string { return "csikit-" + shortHash(volume) + "-" + uuid }

// mappingName is the end of the DMUUID, whose beginning has a fixed length.
func (r *record) mappingName() string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.Mapping.DMUUID, "CRYPT-"), "-")
	_, name, _ := strings.Cut(rest, "-")
	return name
}

// data is the device on which the volume's data is: the mapping of an encrypted
// one.
func (r *record) data() *deviceRecord {
	if r.Mapping != nil {
		return r.Mapping
	}
	return r.Device
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{backends.ErrInvalid}, args...)...)
}
