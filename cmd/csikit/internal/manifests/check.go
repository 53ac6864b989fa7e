package manifests

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/csikit/csikit/internal/kubeletsock"
)

// What Kubernetes takes for names: of a namespace, and of most other objects.
var (
	labels     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	subdomains = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// driverName is the longest name of a CSIDriver.
const driverName = 63

// check tells of all that the apiserver would refuse, or that would do nothing.
func (w *writer) check() error {
	var errs []error
	when := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	when(w.o.Image == "", "no image of the driver")
	when(w.o.Image != strings.TrimSpace(w.o.Image), "image %q has spaces around it", w.o.Image)
	when(!labels.MatchString(w.o.Namespace), "%q is no name of a namespace", w.o.Namespace)
	when(!w.f.node, "the driver has no Node service there: nothing would be mounted")
	when(w.o.HealthPort < 1 || w.o.HealthPort > 65535, "health port %d", w.o.HealthPort)
	when(w.o.Plain && !w.o.Registrar, "plain: who does not know csikit's flags needs a registrar")
	when(len(w.o.Mutable) > 0 && !w.f.modifies(), "mutable parameters, but the driver does not modify volumes")
	errs = append(errs, w.checkName(), w.checkPaths(), w.checkTypes())
	return errors.Join(append(errs, w.checkMetadata()...)...)
}

func (w *writer) checkName() error {
	switch {
	case w.f.Name != strings.ToLower(w.f.Name):
		return fmt.Errorf("%s has upper-case letters: Kubernetes has no CSIDriver object of that name", w.f.Name)
	case len(w.f.Name) > driverName || !subdomains.MatchString(w.f.Name):
		return fmt.Errorf("%q is no domain name of at most %d characters: Kubernetes has no CSIDriver object of that name", w.f.Name, driverName)
	}
	return nil
}

// clean leaves what is no absolute path to checkPaths.
func clean(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return p
}

// mounted is where the driver's container has mounts of its own.
func (w *writer) mounted() []string { return []string{socketDir, w.stateDir(), "/dev", w.o.Kubelet} }

// needed are the directories that the driver says its nodes need, and that are not
// there already.
func (w *writer) needed() []string {
	taken := append(w.mounted(), w.o.HostPaths...)
	return slices.DeleteFunc(w.f.hostPaths(), func(p string) bool {
		has := slices.Contains(taken, p)
		taken = append(taken, p)
		return has
	})
}

// checkPath refuses what cannot be mounted into a container.
func checkPath(p string) error {
	switch {
	case !path.IsAbs(p):
		return fmt.Errorf("%q is no absolute path", p)
	case strings.Contains(p, ":"):
		return fmt.Errorf("%q has a colon, which no mount of a container may have", p)
	case p == "/":
		return errors.New("/ of the host cannot be the container's")
	}
	return nil
}

// checkPaths: a container has one mount at a path.
func (w *writer) checkPaths() error {
	var errs []error
	taken := w.mounted()
	for i, p := range append([]string{w.o.Kubelet}, w.o.HostPaths...) {
		err := checkPath(p)
		if err == nil && i > 0 && slices.Contains(taken, p) {
			err = fmt.Errorf("%q is mounted into the driver's container already", p)
		}
		errs = append(errs, err)
		taken = append(taken, p)
	}
	for _, p := range []string{w.socket(), path.Join(w.registry(), kubeletsock.Registration(w.f.Name))} {
		if err := kubeletsock.Connectable(p); err != nil {
			errs = append(errs, fmt.Errorf("%w: the driver's name or kubelet's directory is too long", err))
		}
	}
	for _, p := range w.needed() {
		if err := checkPath(p); err != nil {
			errs = append(errs, fmt.Errorf("the driver says that its nodes need it: %w", err))
		}
	}
	return errors.Join(errs...)
}

// checkTypes: a StorageClass is named after each.
func (w *writer) checkTypes() error {
	var errs []error
	has := w.f.fsTypes()
	for i, fs := range w.o.FSTypes {
		switch {
		case len(has) > 0 && !slices.Contains(has, fs):
			errs = append(errs, fmt.Errorf("file system %q is none of the driver's: %s", fs, strings.Join(has, ", ")))
		case !subdomains.MatchString(fs):
			errs = append(errs, fmt.Errorf("file system %q cannot be part of a StorageClass's name", fs))
		case slices.Contains(w.o.FSTypes[:i], fs):
			errs = append(errs, fmt.Errorf("file system %s is there twice", fs))
		}
	}
	if _, ok := w.o.Parameters[fsTypeKey]; ok && len(w.o.FSTypes) > 0 {
		errs = append(errs, fmt.Errorf("file systems, and parameter %s", fsTypeKey))
	}
	if len(w.o.FSTypes)+len(w.o.Parameters) > 0 && !w.f.provisions() {
		errs = append(errs, errors.New("file systems or parameters of a StorageClass, but the driver does not make volumes"))
	}
	return errors.Join(errs...)
}

// oneLine is what may stand in a comment: the driver says it of itself.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
