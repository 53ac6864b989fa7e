package kubernetes

import (
	"os/exec"
	"slices"
	"strings"
)

// lvm's classes are in a file that in-vm.sh writes, where the driver has the host's
// directory by what it says of itself.
var lvm = &driver{
	name:  "lvm.csikit.dev",
	pkg:   "examples/lvm",
	asked: func(string) []string { return lvmArgs },
	there: lvmArgs,
	flags: []string{"-fs", "ext4,xfs"},
	left: func() ([]string, error) {
		out, err := exec.Command("lvs", "--noheadings", "-o", "lv_name", "vg0").CombinedOutput()
		return slices.DeleteFunc(strings.Fields(string(out)), func(lv string) bool { return lv == "pool0" }), err
	},
}

var lvmArgs = []string{"-classes=/etc/lvm/csikit.json"}
