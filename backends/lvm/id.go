package lvm

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"

	"github.com/csikit/csikit/backends"
)

// The first letter of an LV's name says what it is.
const (
	kindVolume   = "v"
	kindSnapshot = "s"
	kindGrowth   = "z" // what a volume is to grow by, called after it
	kindTemp     = "t" // a snapshot that a volume is copied from, called after the copy
)

var (
	ownName = regexp.MustCompile(`^[vstz]-[a-z2-7]{26}$`)
	lower32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// nameOf is the LV of the volume or snapshot with this name: 130 bits of its hash.
func nameOf(kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return kind + "-" + lower32.EncodeToString(sum[:])[:26]
}

func makeID(class, lv string) string { return class + "/" + lv }

// splitID takes an ID apart; exactly what makeID gives is one.
func splitID(id, kind string) (class, lv string, ok bool) {
	class, lv, ok = strings.Cut(id, "/")
	return class, lv, ok && className.MatchString(class) && ownName.MatchString(lv) && lv[:1] == kind
}

// locate gives the class and LV of an ID. A text that is no ID at all is a volume
// that cannot exist. One of a class that this process does not know may well exist:
// so it is not said to be not found.
func (b *Backend) locate(id, kind string) (*Class, string, error) {
	class, lv, ok := splitID(id, kind)
	if !ok {
		return nil, "", notFound(kind, id)
	}
	if c := b.classes[class]; c != nil {
		return c, lv, nil
	}
	return nil, "", fmt.Errorf("%w: %s is of class %q, which is not configured on node %s", backends.ErrUnavailable, id, class, b.o.Node)
}

func notFound(kind, id string) error {
	if kind == kindSnapshot {
		return backends.SnapshotNotFound(id)
	}
	return backends.VolumeNotFound(id)
}
