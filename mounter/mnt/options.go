package mnt

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// Attributes of one mount; the values are the kernel's MOUNT_ATTR_*.
const (
	AttrReadOnly    uint64 = 0x1
	AttrNoSUID      uint64 = 0x2
	AttrNoDev       uint64 = 0x4
	AttrNoExec      uint64 = 0x8
	AttrNoAtime     uint64 = 0x10
	AttrStrictAtime uint64 = 0x20
	AttrNoDirAtime  uint64 = 0x80
	AttrNoSymFollow uint64 = 0x200000

	attrAtime uint64 = 0x70 // relatime (0), noatime and strictatime exclude each other
)

// Flags of the whole file system; the values are the kernel's SB_* and MS_*.
const (
	SuperSync     uint64 = 1 << 4
	SuperMand     uint64 = 1 << 6
	SuperDirSync  uint64 = 1 << 7
	SuperSilent   uint64 = 1 << 15
	SuperLazyTime uint64 = 1 << 25
)

const (
	maxFlags = 4096 // CSI: mount_flags, all together
	maxData  = 4095 // mount(2) cuts what is longer off without a word
)

// Options of a new mount of a file system.
type Options struct {
	Attr     uint64 // Attr*: of this mount
	Super    uint64 // Super*: of the file system
	ReadOnly bool   // the mount and the file system
	Data     string // the file system's own options, comma-separated; may hold secrets
	Owners   *Owners

	userns *os.File // of Owners, while it is mounted
}

// BindOptions say how the new mount differs from its source's.
type BindOptions struct {
	ReadOnly bool
	Attr     uint64 // Attr* to add; an atime attribute replaces the source's
	Owners   *Owners
}

// Owners maps the owners of files for a mount and its binds; nil: as they are. It
// cannot be changed later, and not be done to a mount that has it.
type Owners struct{ Map []backends.IDMap }

// OwnersOf is nil for an empty map.
func OwnersOf(m []backends.IDMap) *Owners {
	if len(m) == 0 {
		return nil
	}
	return &Owners{m}
}

// Mapped reports whether the owners of the files of a mount are mapped. How, the
// kernel does not say.
func (i Info) Mapped() bool { return slices.Contains(i.Options, "idmapped") }

func (o BindOptions) attr() uint64 {
	if o.ReadOnly {
		return o.Attr | AttrReadOnly
	}
	return o.Attr
}

type change struct{ set, clear uint64 }

// attrWords are the options of mount(8) that belong to one mount.
var attrWords = map[string]change{
	"nosuid":        {set: AttrNoSUID},
	"suid":          {clear: AttrNoSUID},
	"nodev":         {set: AttrNoDev},
	"dev":           {clear: AttrNoDev},
	"noexec":        {set: AttrNoExec},
	"exec":          {clear: AttrNoExec},
	"noatime":       {set: AttrNoAtime, clear: attrAtime},
	"atime":         {clear: AttrNoAtime},
	"relatime":      {clear: attrAtime},
	"norelatime":    {},
	"strictatime":   {set: AttrStrictAtime, clear: attrAtime},
	"nostrictatime": {clear: AttrStrictAtime},
	"nodiratime":    {set: AttrNoDirAtime},
	"diratime":      {clear: AttrNoDirAtime},
	"nosymfollow":   {set: AttrNoSymFollow},
	"symfollow":     {clear: AttrNoSymFollow},
}

// superWords are the options of mount(8) that belong to the file system,
// whatever its type.
var superWords = map[string]change{
	"sync":       {set: SuperSync},
	"async":      {clear: SuperSync},
	"dirsync":    {set: SuperDirSync},
	"lazytime":   {set: SuperLazyTime},
	"nolazytime": {clear: SuperLazyTime},
	"mand":       {set: SuperMand},
	"nomand":     {clear: SuperMand},
	"silent":     {set: SuperSilent},
	"loud":       {clear: SuperSilent},
}

// refusedWords would change what kind of mount is made, or need mount(8).
var refusedWords = map[string]string{
	"bind": "makes a bind mount", "rbind": "makes a bind mount",
	"remount": "changes another mount", "move": "moves another mount",
	"shared": "sets propagation", "rshared": "sets propagation",
	"slave": "sets propagation", "rslave": "sets propagation",
	"private": "sets propagation", "rprivate": "sets propagation",
	"unbindable": "sets propagation", "runbindable": "sets propagation",
	"loop": "attaches a loop device", "helper": "names a program", "uhelper": "names a program",
	"user": "is for fstab", "users": "is for fstab", "owner": "is for fstab", "group": "is for fstab",
}

// ignoredWords are for fstab, boot scripts and service managers.
var ignoredWords = map[string]bool{
	"defaults": true, "_netdev": true, "nofail": true, "auto": true, "noauto": true,
	"nouser": true, "noowner": true, "nogroup": true, "comment": true,
}

// ParseOptions reads mount flags as a CO gives them: words and key=value pairs
// of mount(8), one or more in each element, where a value in double quotes may
// hold commas (context="a:b:c1,c2"). The last word of a contradictory pair wins,
// as it does with mount(8). It refuses, with [backends.ErrInvalid], words that
// would make another kind of mount (bind, remount, move, propagation), loop and
// helper options, NUL bytes, and more than 4 KiB in all. Errors name the word and
// never its value.
func ParseOptions(flags []string) (Options, error) {
	total := 0
	for _, f := range flags {
		total += len(f)
	}
	if total > maxFlags {
		return Options{}, fmt.Errorf("%w: mount options: %d bytes, more than %d", backends.ErrInvalid, total, maxFlags)
	}
	var o Options
	var data []string
	for _, f := range flags {
		words, err := split(f)
		if err != nil {
			return Options{}, err
		}
		for _, w := range words {
			keep, err := o.apply(w)
			if err != nil {
				return Options{}, err
			}
			if keep {
				data = append(data, w)
			}
		}
	}
	o.Data = strings.Join(data, ",")
	return o, o.check()
}

// apply takes one word; keep says that it is the file system's own.
func (o *Options) apply(word string) (keep bool, err error) {
	key, _, valued := strings.Cut(word, "=")
	if why, bad := refusedWords[key]; bad && (!valued || key == "loop" || key == "helper" || key == "uhelper") {
		return false, fmt.Errorf("%w: mount option %q %s", backends.ErrInvalid, key, why)
	}
	if valued && (key == "ro" || key == "rw") {
		// The kernel reads no value, and would turn a read-only mount's file system
		// writable; to mount(8) the value says which of the two is meant.
		return false, fmt.Errorf("%w: mount option %q takes no value", backends.ErrInvalid, key)
	}
	if strings.HasPrefix(key, "X-") {
		return false, fmt.Errorf("%w: mount option %q is an instruction to mount(8)", backends.ErrInvalid, key)
	}
	if strings.HasPrefix(key, "x-") || ignoredWords[key] && (!valued || key == "comment") {
		return false, nil
	}
	if valued {
		return true, nil
	}
	if word == "ro" || word == "rw" {
		o.ReadOnly = word == "ro"
		return false, nil
	}
	if c, ok := attrWords[word]; ok {
		o.Attr = o.Attr&^c.clear | c.set
		return false, nil
	}
	if c, ok := superWords[word]; ok {
		o.Super = o.Super&^c.clear | c.set
		return false, nil
	}
	return true, nil
}

// check refuses what the kernel would misread.
func (o Options) check() error {
	switch {
	case strings.ContainsRune(o.Data, 0):
		return fmt.Errorf("%w: mount options: NUL byte", backends.ErrInvalid)
	case len(o.Data) > maxData:
		return fmt.Errorf("%w: mount options: %d bytes, more than %d", backends.ErrInvalid, len(o.Data), maxData)
	case o.Attr&attrAtime == AttrNoAtime|AttrStrictAtime:
		return fmt.Errorf("%w: mount options: noatime and strictatime", backends.ErrInvalid)
	}
	return nil
}

// split cuts at the commas outside of double quotes and drops empty words. The
// quotes stay.
func split(s string) ([]string, error) {
	if strings.ContainsRune(s, 0) {
		return nil, fmt.Errorf("%w: mount options: NUL byte", backends.ErrInvalid)
	}
	var words []string
	quoted, start := false, 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] == '"' {
			quoted = !quoted
		}
		if i < len(s) && (quoted || s[i] != ',') {
			continue
		}
		if i > start {
			words = append(words, s[start:i])
		}
		start = i + 1
	}
	if quoted {
		key, _, _ := strings.Cut(words[len(words)-1], "=")
		return nil, fmt.Errorf("%w: mount option %q: quote without end", backends.ErrInvalid, key)
	}
	return words, nil
}

// unquote takes the double quotes off a value: only mount(2) wants them.
func unquote(v string) string {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

// redact takes the values of options out of a message: they may be secrets. Very
// short ones stay, as they would match anything.
func redact(msg, data string) string {
	const short = 4
	for _, w := range splitLoose(data) {
		if _, v, _ := strings.Cut(w, "="); len(unquote(v)) >= short {
			msg = strings.ReplaceAll(msg, unquote(v), "***")
		}
	}
	return msg
}
