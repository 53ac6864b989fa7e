package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
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

// chunk is what the pool gives to its volumes at a time.
func chunk() (int64, error) {
	out, err := exec.Command("lvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "chunk_size", "vg0/pool0").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("lvs: %w: %s", err, out)
	}
	return strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
}

// readAhead: the device reads ahead what "second" in vmVariants says.
func readAhead(device string) error {
	b, err := os.ReadFile("/sys/dev/block/" + device + "/queue/read_ahead_kb")
	if got := strings.TrimSpace(string(b)); err == nil && got != "2048" {
		err = fmt.Errorf("device %s reads %s KiB ahead", device, got)
	}
	return err
}
