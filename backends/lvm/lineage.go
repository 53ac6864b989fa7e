package lvm

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// The tags of snapshots and copies.
const (
	tagOrigin  = "csi.su=" // UUID of the LV that this one is copied from, block by block
	tagGroup   = "csi.g="  // name of the group snapshot that it is a member of, base64url
	tagMembers = "csi.gn=" // how many members the group has
	tagHolds   = "csi.ms"  // the metadata of its pool is held, for a list of changed blocks
)

// lineage is the part of meta that says how an LV hangs together with others.
type lineage struct {
	OriginUUID string
	Group      string
	Members    int
	Holds      bool
}

func (l *lineage) tags() (t []string) {
	if l.OriginUUID != "" {
		t = append(t, tagOrigin+l.OriginUUID)
	}
	if l.Group != "" {
		t = append(t, tagGroup+base64.RawURLEncoding.EncodeToString([]byte(l.Group)), tagMembers+strconv.Itoa(l.Members))
	}
	if l.Holds {
		t = append(t, tagHolds)
	}
	return t
}

func (m *meta) parseLineage(tags []string) error {
	l := &m.lineage
	uuid, err1 := one(tags, tagOrigin)
	group, err2 := one(tags, tagGroup)
	members, err3 := one(tags, tagMembers)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	l.OriginUUID, l.Holds = uuid, slices.Contains(tags, tagHolds)
	raw, err := base64.RawURLEncoding.DecodeString(group)
	if err != nil {
		return fmt.Errorf("%w: tag %s%q cannot be read", backends.ErrUnavailable, tagGroup, group)
	}
	if l.Group = string(raw); group == "" && members == "" {
		return nil
	}
	if l.Members, err = strconv.Atoi(members); err != nil || l.Members < 1 || group == "" {
		return fmt.Errorf("%w: tag %s%q cannot be read", backends.ErrUnavailable, tagMembers, members)
	}
	return nil
}

// thick tells the snapshots that have space of their own, into which device-mapper
// copies what is overwritten in their volume.
func (v *volume) thick() bool { return v.pool == "" && hasItem(v.role, "thicksnapshot") }

// content is how many bytes the LV shows: a thick snapshot has a size of its own
// besides, which is that of its space.
func (v *volume) content() int64 {
	if v.thick() {
		return v.originSize
	}
	return v.size
}

// thickOf says that v is a thick snapshot of origin.
func (v *volume) thickOf(origin *volume) bool { return v.thick() && v.origin == origin.name }

// byUUID finds an LV whatever it is called and tagged; nil: it is not there.
func (g *group) byUUID(uuid string) *volume {
	for _, v := range g.lvs {
		if v.uuid == uuid {
			return v
		}
	}
	return nil
}

// hasItem says whether a list of lvm, separated by commas, has the item.
func hasItem(list, item string) bool { return slices.Contains(strings.Split(list, ","), item) }

// whole says that a snapshot has what it was cut with, as far as lvm can tell: it was
// not split off to be wiped, and is not lost.
func (v *volume) whole() bool {
	return (v.pool != "" || v.thick()) && !v.invalid && v.own.State != stateDeleting
}

// named finds an LV by its name; nil: it is not there.
func (g *group) named(name string) *volume {
	for _, v := range g.lvs {
		if v.name == name {
			return v
		}
	}
	return nil
}
