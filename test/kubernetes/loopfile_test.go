package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// podsCgroup is that of all pods, as kubelet makes it, of cgroups v2; io.max is of
// those alone, which this machine may not have, and the VM has.
const podsCgroup = "/sys/fs/cgroup/kubepods"

// poolInVM has the pool and the driver's state on a disk of the VM, whose root is in
// memory.
func poolInVM() error {
	for _, dir := range []string{pool, "/var/lib/csi-" + loopfile.name} {
		disk := "/var/csik8s" + dir
		err := errors.Join(os.MkdirAll(disk, 0o755), os.MkdirAll(dir, 0o755), tool("mount", "--bind", disk, dir))
		if err != nil {
			return err
		}
	}
	return tool("modprobe", "loop")
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
