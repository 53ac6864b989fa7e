package backends

// Encryption asks csikit to keep the data of a device encrypted (LUKS2): it is
// formatted so when it may be formatted at all, opened when it is staged, grown
// with the device and closed before CloseVolume. What holds a LUKS header is
// opened and never formatted; what holds a plain file system is refused.
//
// The backend takes the keys out of the node-stage secrets at each OpenVolume.
// csikit stores none of them: a volume whose key is lost is lost. Size and
// Identity of the Device are those of the encrypted one; its header takes 16 MiB
// away from the user. Format and FSType tell of both layers: Done means that there
// is a file system inside, or data.
//
// A clone and a restored snapshot have the keys of their source.
type Encryption struct {
	// Key opens the volume. Any bytes, as they are; not empty.
	Key Secret
	// PreviousKey is what Key was before it was changed; empty: nothing. Where it
	// opens the volume, Key takes its place: added, tried, and only then the old one
	// is removed. It can stay here for ever.
	PreviousKey Secret

	// Discard passes discards on to the device, which tells whoever sees that which
	// blocks are in use.
	Discard bool

	// What follows is for a volume, or a key, that is made; those that are there
	// keep theirs. "" and 0 are the defaults.
	Cipher     string // aes-xts-plain64 (default), serpent-xts-plain64, twofish-xts-plain64, xchacha12,aes-adiantum-plain64, xchacha20,aes-adiantum-plain64
	KeyBits    int    // 512 for xts (default), 256
	SectorSize int    // 512 or 4096; default: what suits the device
	// PBKDF makes a key out of Key: argon2id (default) or pbkdf2. argon2id needs
	// Memory each time the volume is opened, and the node plugin's limit must allow
	// for it. For keys that are random (and not words) pbkdf2 is as good.
	PBKDF      string
	Memory     int // KiB for argon2id, 32 to 4194304; default 65536
	Iterations int // at least 4 for argon2id, 1000 for pbkdf2; default: what takes two seconds
}
