package lvm

import "strings"

// suspended are the UUIDs, with this prefix, of the devices that are suspended.
func (*mapper) suspended(prefix string) (uuids []string, err error) {
	names, err := mapperNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		is, err := attribute(name, "dm/suspended")
		if err != nil || is != "1" {
			continue
		}
		uuid, err := attribute(name, "dm/uuid")
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(uuid, prefix) {
			uuids = append(uuids, uuid)
		}
	}
	return uuids, nil
}
