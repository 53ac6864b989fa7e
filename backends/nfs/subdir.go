package nfs

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/csikit/csikit/backends"
)

// controlPrefix begins the directories of drivers on a share: no volume lies there.
const controlPrefix = ".csi-"

const (
	maxComponent = 255
	maxSubDir    = 1024
	maxDepth     = 16
)

// checkSubDir refuses what is not, byte for byte, the path of a directory below the
// root of a share: no empty component, no "." or "..", nothing absolute, and nothing
// of a driver's own. It is not made clean: who asks for "a/../b" means something that
// he should say otherwise.
func checkSubDir(p string) error {
	switch {
	case p == "":
		return errors.New("is empty")
	case len(p) > maxSubDir:
		return fmt.Errorf("is longer than %d bytes", maxSubDir)
	case strings.Count(p, "/") >= maxDepth:
		return fmt.Errorf("is deeper than %d directories", maxDepth)
	}
	for c := range strings.SplitSeq(p, "/") {
		if !cleanComponent(c) {
			return fmt.Errorf("%q has the component %q", p, c)
		}
	}
	if first, _, _ := strings.Cut(p, "/"); strings.HasPrefix(strings.ToLower(first), controlPrefix) {
		return fmt.Errorf("%q is where drivers keep their own", p)
	}
	return nil
}

// cleanComponent tells whether c is one path component that means itself, everywhere.
func cleanComponent(c string) bool {
	return c != "" && c != "." && c != ".." && len(c) <= maxComponent && utf8.ValidString(c) &&
		!strings.ContainsAny(c, "/\\#") && strings.IndexFunc(c, unprintable) < 0 &&
		strings.TrimSpace(c) == c
}

// oneSlash makes one slash of several between components, as the file system does:
// csi-driver-nfs leaves those of a template whose values were empty.
func oneSlash(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

// defaultSubDir is where a volume without subDir lies: at its name, as with
// csi-driver-nfs, if that can be one.
func defaultSubDir(name string) string {
	if cleanComponent(name) && !strings.HasPrefix(strings.ToLower(name), controlPrefix) && !strings.HasPrefix(name, archivedPrefix) {
		return name
	}
	return "v-" + keyOf(name)
}

// expandSubDir puts names into a template, each of which has to be one component.
func expandSubDir(template, name string, o backends.Owner) (string, error) {
	pv := o.PV
	if pv == "" {
		pv = name
	}
	values := map[string]string{
		"pvc.metadata.name": o.PVC, "pvc.metadata.namespace": o.PVCNamespace, "pv.metadata.name": pv,
	}
	var b strings.Builder
	for rest := template; ; {
		before, after, found := strings.Cut(rest, "${")
		b.WriteString(before)
		if !found {
			break
		}
		key, tail, closed := strings.Cut(after, "}")
		v, known := values[key]
		switch {
		case !closed || !known:
			return "", fmt.Errorf("%w: subDir %q: want ${pvc.metadata.name}, ${pvc.metadata.namespace} or ${pv.metadata.name}", backends.ErrInvalid, template)
		case v == "":
			return "", fmt.Errorf("%w: subDir %q: ${%s} is not known: start external-provisioner with --extra-create-metadata", backends.ErrInvalid, template, key)
		case !cleanComponent(v):
			return "", fmt.Errorf("%w: subDir %q: ${%s} is %q, no name of a directory", backends.ErrInvalid, template, key, v)
		}
		b.WriteString(v)
		rest = tail
	}
	// csi-driver-nfs trims slashes, so that classes have some.
	dir := strings.Trim(b.String(), "/")
	if err := checkSubDir(dir); err != nil {
		return "", fmt.Errorf("%w: subDir: %w", backends.ErrInvalid, err)
	}
	return dir, nil
}

// archivedPrefix begins the names of archived volumes, at the root of the share.
const archivedPrefix = "archived-"
