package lvm

import (
	"fmt"
	"os"
	"strings"

	"github.com/csikit/csikit/backends"
)

// suspended are the UUIDs, with this prefix, of the devices that are suspended.
func (*mapper) suspended(prefix string) (uuids []string, err error) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "dm-") {
			continue
		}
		is, err := attribute(e.Name(), "dm/suspended")
		if err != nil || is != "1" {
			continue
		}
		uuid, err := attribute(e.Name(), "dm/uuid")
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(uuid, prefix) {
			uuids = append(uuids, uuid)
		}
	}
	return uuids, nil
}
