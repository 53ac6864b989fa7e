package loopfile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"

	"github.com/csikit/csikit/backends"
)

const poolNameRule = "1 to 31 of [a-z0-9-], not starting with -"

var (
	poolName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	dirName  = regexp.MustCompile(`^[a-z2-7]{26}$`)
	lower32  = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

func validPoolName(s string) bool { return poolName.MatchString(s) }

// dirOf is the directory of the volume with this name: 130 bits of its hash.
func dirOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return lower32.EncodeToString(sum[:])[:26]
}

func makeID(pool, dir string) string { return pool + "." + dir }

// splitID takes an ID apart; exactly what makeID gives is one.
func splitID(id string) (pool, dir string, ok bool) {
	pool, dir, ok = strings.Cut(id, ".")
	return pool, dir, ok && validPoolName(pool) && dirName.MatchString(dir)
}

// decode gives the directory of an ID of this pool. A text that is no ID at all
// is a volume that cannot exist. A well-formed ID of another pool may well exist
// elsewhere: this process cannot know, so it does not say not-found.
func (p *pool) decode(id string) (dir string, err error) {
	name, dir, ok := splitID(id)
	switch {
	case !ok:
		return "", backends.VolumeNotFound(id)
	case name != p.info.Name:
		return "", fmt.Errorf("%w: volume %s is in pool %q, and %s is pool %q", backends.ErrUnavailable, id, name, p.dir, p.info.Name)
	}
	return dir, nil
}

// randomName is n characters that nobody else has.
func randomName(n int) string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // crypto/rand never fails: it ends the program instead
	return lower32.EncodeToString(b)[:n]
}
