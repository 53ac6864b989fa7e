package sanity

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// excess is where csi-test v5.6.0 asks for more than the spec, and valid drivers fail.
type excess struct {
	spec string     // is in its name
	says string     // is in its message
	code codes.Code // that the driver answered with, if not OK
	why  string
}

var excesses = []excess{
	{"different capacity", "", codes.OutOfRange, "csi-sanity wants volumes of exactly the size that it is given, and the driver has none of that size: say another (--size)"},
	{"GetPluginInfo should return appropriate information", "to be true", codes.OK,
		"csi-sanity's pattern for names is not the spec's: it refuses those that begin or end with a digit (H-11/plugin-info holds to the spec's)"},
	{"ExpandVolume [Controller Server] should work", "to equal", codes.OK, wantsExactly},
	{"NodeExpandVolume should work", "to equal", codes.OK, wantsExactly},
	{"NodeGetVolumeStats should fail when volume", "", codes.InvalidArgument, sendsRelative},
	{"NodeExpandVolume should fail when volume is not found", "", codes.InvalidArgument, sendsRelative},
	{"GetVolumeGroupSnapshot should fail when an invalid volume id", "", codes.InvalidArgument, sendsNoMembers},
	{"DeleteVolumeGroupSnapshot should succeed when an invalid volume id", "", codes.InvalidArgument, sendsNoMembers},
	{"ModifyVolume [Controller Server] should fail if volume does not exist", "", codes.InvalidArgument, sendsNoParameters},
	{"ModifyVolume [Controller Server] should modify", "", codes.InvalidArgument, sendsNoParameters},
	{"ListVolumes check the presence", "to equal\n    <int>:", codes.OK, countsOnePage},
	{"ListSnapshots [Controller Server] check the presence", "to have length", codes.OK, countsOnePage},
	{"ListSnapshots [Controller Server] should return next token", "to have length", codes.OK, countsOnePage},
}

const (
	wantsExactly      = "csi-sanity wants exactly the size that it asked for; the spec lets a driver round up (H-15 holds to the spec)"
	sendsRelative     = "csi-sanity sends the relative path some/path, which a driver may refuse as such"
	sendsNoMembers    = "csi-sanity sends no snapshot_ids, which the spec requires"
	sendsNoParameters = "csi-sanity sends no mutable_parameters, which the spec requires (give some: --mutable-parameters)"
	countsOnePage     = "csi-sanity counts the entries of one page, and nobody else's; a page may have fewer than max_entries (H-20 walks through all)"
)

// asksMore says why a spec of csi-sanity that fails is no failure of the driver.
func asksMore(s *spec) string {
	i := slices.IndexFunc(excesses, func(e excess) bool {
		return strings.Contains(s.Name, e.spec) && strings.Contains(s.Message, e.says) && (e.code == codes.OK || answeredWith(s.Message, e.code))
	})
	if i < 0 {
		return ""
	}
	return excesses[i].why
}

// answeredWith tells whether a driver's code is in a message: of an error that was
// not to be, or compared, as a number, with another.
func answeredWith(message string, c codes.Code) bool {
	return strings.Contains(message, "code = "+c.String()+" ") || regexp.MustCompile(fmt.Sprintf(`<codes\.Code>: %d\s+to equal`, c)).MatchString(message)
}
