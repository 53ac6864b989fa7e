package nfs

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Share is an export of a server.
type Share struct {
	Name    string   // in the handles of its volumes, for ever: 1 to 31 of [a-z0-9-]. "": of no configuration
	Server  string   // a host name or an address; "" for a LocalDir that no server exports
	Export  string   // the absolute path that is exported
	Options []string // mount options, wherever it is mounted
	// ID is what the share's share.json has as such ("": what the driver finds there first).
	// With it no other disk is taken for the share, also by a host that has not seen it yet.
	ID string
	// LocalDir is where the share's root is on this host: of the controller on the
	// server itself, and in tests. With an empty Server nodes bind from it, too.
	LocalDir string
}

var (
	shareName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?$`)
	shareID   = regexp.MustCompile(`^[A-Z2-7]{26}$`)
	hostName  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?$`)
)

// check refuses a configured share that is none, and makes paths clean.
func (s *Share) check() error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(!shareName.MatchString(s.Name), "Name %q: want %s", s.Name, shareName)
	bad(s.ID != "" && !shareID.MatchString(s.ID), "ID %q: want the id in the share's %s", s.ID, shareFile)
	bad(s.Server == "" && s.LocalDir == "", "neither Server nor LocalDir is given")
	bad(s.LocalDir != "" && !filepath.IsAbs(s.LocalDir), "LocalDir %q is no absolute path", s.LocalDir)
	if s.Server != "" {
		bad(!validServer(s.Server), "Server %q is no host name and no address", s.Server)
		e, err := cleanExport(s.Export)
		bad(err != nil, "Export: %v", err)
		s.Export = e
	}
	if err := checkMountOptions(s.Options); err != nil {
		errs = append(errs, fmt.Errorf("Options: %w", err)) //nolint:staticcheck,revive // the name of the field
	}
	return errors.Join(errs...)
}

// same tells whether both are one export.
func (s Share) same(o Share) bool {
	if s.Server == "" || o.Server == "" {
		return s.Server == o.Server && s.LocalDir == o.LocalDir
	}
	return strings.EqualFold(s.Server, o.Server) && s.Export == o.Export
}

// source is what is mounted: the share, or a directory of it.
func (s Share) source(subDir string) string {
	server := s.Server
	if strings.Contains(server, ":") && !strings.HasPrefix(server, "[") {
		server = "[" + server + "]"
	}
	return server + ":" + path.Join(s.Export, subDir)
}

// String is how messages call it.
func (s Share) String() string {
	switch {
	case s.Server == "":
		return s.LocalDir
	case s.Name == "":
		return s.source("")
	default:
		return s.Name + " (" + s.source("") + ")"
	}
}

// validServer: it becomes an argument of mount.nfs.
func validServer(s string) bool {
	if hostName.MatchString(s) {
		return true
	}
	_, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return err == nil
}

// cleanExport is the path of an export as it stands in a mount's source. "//srv" and
// "/srv/" are "/srv"; what is not absolute, or goes up, is refused.
func cleanExport(e string) (string, error) {
	switch {
	case e == "":
		return "", errors.New("is empty")
	case !strings.HasPrefix(e, "/"):
		return "", fmt.Errorf("%q is no absolute path", e)
	case len(e) > 1024:
		return "", errors.New("is longer than 1024 bytes")
	}
	for c := range strings.SplitSeq(e, "/") {
		if c == ".." || c == "." {
			return "", fmt.Errorf("%q has a component %q", e, c)
		}
	}
	if i := strings.IndexFunc(e, unprintable); i >= 0 {
		return "", fmt.Errorf("%q has a control character", e)
	}
	return path.Clean("/" + strings.TrimLeft(e, "/")), nil
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }

// checkMountOptions refuses mount options that no share has. Each may itself be
// several, with commas between them.
func checkMountOptions(opts []string) error {
	_, err := parseOptions(opts)
	return err
}
