package kmount

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// words are the options of one call, a word each.
type words struct {
	bind, remount    bool
	words, sensitive []string // without bind and remount
	ofMount          []string // of those, what belongs to a mount and not to its file system
}

// parseWords reads options as mount(8) does, and refuses what csikit does not
// follow (mnt.ParseOptions says what that is) before anything is done.
func parseWords(options, sensitive, flags []string) (*words, error) {
	w := &words{}
	more, err := w.commandFlags(flags)
	if err != nil {
		return nil, err
	}
	if w.words, err = w.take(append(more, options...)); err != nil {
		return nil, err
	}
	if w.sensitive, err = w.take(sensitive); err != nil {
		return nil, err
	}
	return w, nil
}

// take splits options and keeps what is not bind or remount.
func (w *words) take(options []string) (keep []string, err error) {
	all, err := mnt.SplitOptions(options)
	if err != nil {
		return nil, err
	}
	for _, word := range all {
		switch word {
		case "bind":
			w.bind = true
		case "remount":
			w.remount = true
		default:
			if _, err := mnt.ParseOptions([]string{word}); err != nil {
				return nil, err
			}
			keep = append(keep, word)
		}
	}
	return keep, nil
}

// commandFlags turns flags of the command into options.
func (w *words) commandFlags(flags []string) (options []string, err error) {
	for _, f := range flags {
		switch f {
		case "-c", "--no-canonicalize", "-v", "--verbose", "-n", "--no-mtab":
		case "-r", "--read-only":
			options = append(options, "ro")
		case "-w", "--rw", "--read-write":
			options = append(options, "rw")
		case "-B", "--bind":
			w.bind = true
		default:
			name, _, _ := strings.Cut(f, "=") // the value may be anything
			return nil, fmt.Errorf("%w: flag %q of mount(8)", backends.ErrInvalid, name)
		}
	}
	return options, nil
}

// attributes are what a bind can have; the rest is logged, by name. mount(8) leaves
// it out, too, and says nothing.
func (w *words) attributes(log *slog.Logger, target string) (mnt.BindOptions, error) {
	var without []string
	for i, all := range [][]string{w.words, w.sensitive} {
		for _, word := range all {
			o, err := mnt.ParseOptions([]string{word})
			switch {
			case err != nil:
				return mnt.BindOptions{}, err
			case o.Data == "" && o.Super == 0:
				w.ofMount = append(w.ofMount, word)
			case i == 0:
				key, _, _ := strings.Cut(word, "=")
				without = append(without, key)
			default:
				without = append(without, "(sensitive)")
			}
		}
	}
	if len(without) > 0 {
		log.Warn("mount options of a file system have no effect on a bind", "target", target, "options", without)
	}
	o, err := mnt.ParseOptions(w.ofMount)
	return mnt.BindOptions{ReadOnly: o.ReadOnly, Attr: o.Attr}, err
}

// secretFile says how a helper takes secrets by file.
type secretFile struct {
	option string            // whose value is the file
	keys   map[string]string // option -> how the file calls it; "": the value alone is the file
}

var cifsFile = secretFile{"credentials", map[string]string{
	"username": "username", "user": "username", "password": "password", "pass": "password", "password2": "password2", "domain": "domain", "dom": "domain",
}}

var secretFiles = map[string]secretFile{
	"cifs": cifsFile,
	"smb3": cifsFile,
	"ceph": {"secretfile", map[string]string{"secret": ""}},
}

// hide gives sensitive options to a helper by file. helped is false where the
// kernel gets them, which shows them to nobody.
func (w *words) hide(helper bool, fstype string, req *mounter.MountRequest) (helped bool, err error) {
	if len(w.sensitive) == 0 || !helper {
		return false, nil
	}
	f := secretFiles[fstype]
	var content strings.Builder
	for i, word := range w.sensitive {
		key, value, _ := strings.Cut(word, "=")
		name, ok := f.keys[key]
		switch o, err := mnt.ParseOptions([]string{word}); {
		case err != nil:
			return true, err
		case o.Data == "" && value != "": // x-name=value, comment=: of no mount
			continue
		case o.Data == "": // ro, noatime and the like
			req.Options = append(req.Options, word)
			continue
		case !ok:
			return true, fmt.Errorf("%w: sensitive option %d: mount.%s would get it on its command line, which every process can read", backends.ErrInvalid, i+1, fstype)
		case strings.ContainsRune(value, '\n'):
			return true, fmt.Errorf("%w: sensitive option %d has a line break", backends.ErrInvalid, i+1)
		}
		if name != "" {
			content.WriteString(name + "=")
		}
		content.WriteString(value + "\n")
	}
	if content.Len() > 0 {
		req.Files = map[string]backends.Secret{f.option: backends.NewSecret(content.String())}
	}
	return true, nil
}
