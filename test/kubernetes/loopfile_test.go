package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// podsCgroup is that of all pods, as kubelet makes it, of cgroups v2.
const podsCgroup = "/sys/fs/cgroup/kubepods"

// poolVM is a directory that lies on a disk of the VM, whose root is in memory.
const poolVM = "/var/csik8s/srv"

// loopfileLimited is the driver where pods' I/O can be limited: io.max is of cgroups
// v2, which this machine may not have, and the VM has.
var loopfileLimited = &driver{
	name:  loopfile.name,
	pkg:   loopfile.pkg,
	asked: loopfile.asked,
	there: []string{"-pool=" + poolVM + "/volumes"},
	flags: []string{"-host-path", poolVM, "-fs", "ext4,xfs,btrfs"},
	left: func() ([]string, error) {
		return globs(poolVM+"/volumes/v/*/img", poolVM+"/volumes/s/*", poolVM+"/volumes/.trash/*")
	},
}

func poolInVM() error {
	out, err := exec.Command("modprobe", "loop").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("modprobe: %w: %s", err, out)
	}
	return errors.Join(err, os.MkdirAll(poolVM, 0o755))
}

// limited: the kernel keeps all pods together to what "second" in vmVariants says, with
// this device.
func limited(device string) error {
	b, err := os.ReadFile(podsCgroup + "/io.max")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, device+" ") && strings.Contains(line, " wbps=4194304 ") {
			return nil
		}
	}
	return fmt.Errorf("io.max says nothing of device %s:\n%s", device, b)
}

// kept: the pool has "second" of hostVariants for the volume of this device.
func kept(device string) error {
	attached, err := loops()
	if err != nil {
		return err
	}
	images, err := filepath.Glob(pool + "/v/*/img")
	if err != nil {
		return err
	}
	for _, img := range images {
		file, err := backed(img)
		if err != nil || file != attached["/dev/loop"+strings.TrimPrefix(device, "7:")] {
			continue // or it was just deleted
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(img), "meta.json"))
		if err != nil {
			return err
		}
		var meta struct{ Mutable map[string]string }
		if err := json.Unmarshal(b, &meta); err != nil {
			return err
		}
		if meta.Mutable["write-iops"] != "max" {
			return fmt.Errorf("kept of the volume: %v", meta.Mutable)
		}
		return nil
	}
	return fmt.Errorf("no volume of %d is that of device %s", len(images), device)
}
