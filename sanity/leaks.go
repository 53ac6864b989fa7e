package sanity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// leftMounts names the mounts below dir, and ends them: dir is removed after the
// test, and what is mounted there must not be.
func leftMounts(dir string) error {
	all, err := mnt.List()
	if errors.Is(err, backends.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	var left []error
	for _, m := range slices.Backward(all) { // the latest first: it may lie in an earlier one
		if strings.HasPrefix(m.Point, dir+"/") {
			left = append(left, fmt.Errorf("sanity: mount left behind: %s on %s", m.Source, m.Point))
			if _, err := mnt.Detach(m.Point); err != nil {
				left = append(left, err)
			}
		}
	}
	return errors.Join(left...)
}
