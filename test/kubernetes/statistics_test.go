package kubernetes

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// figures of a volume, as kubelet's metrics call them.
type figures map[string]int64

var metrics = []string{"capacity_bytes", "used_bytes", "available_bytes", "inodes", "inodes_used", "inodes_free"}

// statistics: kubelet asks NodeGetVolumeStats and shows what it hears, which is what
// statfs says of the pod's mount, before and after the pod writes. Of NFS without a
// quota it is what the server has, too.
func statistics(s *space) {
	const written, slack = 8 << 20, 1 << 20 // which is a block of statfs over NFS
	most := int64(written + slack)
	if s.d.driver.name == nfs.name {
		most = 3 * written // the server's xfs takes more than a file has while that is open
	}
	s.claim("a", ext4, "64Mi")
	s.pod("p", "a")
	s.ready("p")
	mount := filepath.Join("/var/lib/kubelet/pods", s.get("{.metadata.uid}", "pod", "p"), "volumes/kubernetes.io~csi", s.volume("a"), "mount")
	before := s.shown("a", mount)
	if s.d.driver == nfs {
		s.near(before, export, 4*slack)
	} else if c := before["capacity_bytes"]; c < 40<<20 || c > 64<<20 {
		s.Errorf("a volume of 64 MiB has %d bytes", c)
	}
	s.sh("p", "dd if=/dev/zero of=/data/f bs=1M count=8 2>/dev/null && touch /data/g && sync")
	eventually(s.T, "what the pod wrote is used", func() error {
		after := s.shown("a", mount)
		used, available := after["used_bytes"]-before["used_bytes"], before["available_bytes"]-after["available_bytes"]
		if after["capacity_bytes"] != before["capacity_bytes"] {
			s.Errorf("the capacity was %d, and is %d", before["capacity_bytes"], after["capacity_bytes"])
		}
		if inodes := after["inodes_used"] - before["inodes_used"]; used < written || used > most || available < written-slack || available > most || inodes < 2 {
			return fmt.Errorf("%d bytes and %d inodes more are used, and %d bytes less available", used, inodes, available)
		}
		return nil
	})
}

// shown waits until the metrics of a claim's volume are what statfs says.
func (s *space) shown(claim, mount string) (got figures) {
	s.Helper()
	eventually(s.T, "kubelet's metrics are what statfs says", func() (err error) {
		if got, err = s.metrics(claim); err != nil {
			return err
		}
		return got.differ(mount, 0)
	})
	return got
}

// near: what is shown is what statfs says of a directory, to a slack: others may write to it.
func (s *space) near(got figures, dir string, slack int64) {
	s.Helper()
	if err := got.differ(dir, slack); err != nil {
		s.Error(err)
	}
}

// metrics are kubelet's of a claim.
func (s *space) metrics(claim string) (figures, error) {
	out, err := try("", "get", "--raw", "/api/v1/nodes/csi-node/proxy/metrics")
	if err != nil {
		return nil, err
	}
	got := figures{}
	for _, m := range metrics {
		series := "\nkubelet_volume_stats_" + m + `{namespace="` + s.ns + `",persistentvolumeclaim="` + claim + `"} `
		_, rest, ok := strings.Cut(out, series)
		if !ok {
			return nil, fmt.Errorf("no %s", strings.TrimSpace(series))
		}
		value, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, err
		}
		got[m] = int64(n)
	}
	return got, nil
}

// differ says which figures are not statfs', to a slack.
func (f figures) differ(path string, slack int64) error {
	out, err := exec.Command("stat", "--file-system", "--format", "%S %b %f %a %c %d", path).Output()
	if err != nil {
		return fmt.Errorf("stat -f %s: %w", path, err)
	}
	var block, blocks, free, available, inodes, inodesFree int64
	if _, err := fmt.Sscan(string(out), &block, &blocks, &free, &available, &inodes, &inodesFree); err != nil {
		return fmt.Errorf("stat -f %s: %q: %w", path, out, err)
	}
	want := figures{
		"capacity_bytes": blocks * block, "used_bytes": (blocks - free) * block, "available_bytes": available * block,
		"inodes": inodes, "inodes_used": inodes - inodesFree, "inodes_free": inodesFree,
	}
	for _, m := range metrics {
		if d := f[m] - want[m]; d < -slack || d > slack {
			err = errors.Join(err, fmt.Errorf("%s: shown %d, statfs of %s has %d", m, f[m], path, want[m]))
		}
	}
	return err
}
