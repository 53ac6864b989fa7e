package kubernetes

import (
	"fmt"
	"strconv"
)

func block(s *space) {
	s.claim("a", xfs, "64Mi", "volumeMode: Block")
	s.blockPod("p", "a")
	s.ready("p")
	s.sh("p", "echo one | dd of=/dev/xvda conv=fsync 2>/dev/null")
	s.patch("a", "128Mi")
	s.is("128Mi", "{.status.capacity.storage}", "pvc", "a")
	eventually(s.T, "the pod's device grows", func() error {
		if got := s.sh("p", "blockdev --getsize64 /dev/xvda"); got != strconv.Itoa(128<<20) {
			return fmt.Errorf("it has %s bytes", got)
		}
		return nil
	})
	s.remove("pod", "p")
	s.blockPod("q", "a")
	s.ready("q")
	s.want(s.sh("q", "head -c 3 /dev/xvda"), "one")
}

func (s *space) patch(claim, size string) {
	s.Helper()
	kubectl(s.T, "-n", s.ns, "patch", "pvc", claim, "--type=merge", "-p", `{"spec":{"resources":{"requests":{"storage":"`+size+`"}}}}`)
}

// grow grows a volume in use; the pod must see at least so many bytes.
func grow(s *space, claim, pod, size string, bytes int) {
	s.Helper()
	s.patch(claim, size)
	s.is(size, "{.status.capacity.storage}", "pvc", claim)
	s.sees(pod, bytes)
}

func (s *space) sees(pod string, bytes int) {
	s.Helper()
	got, err := strconv.Atoi(s.sh(pod, "df -k /data | awk 'END{print $(NF-4)}'"))
	if err != nil || got<<10 < bytes {
		s.Errorf("the pod sees %d KiB, %v", got, err)
	}
}

func expandOnline(s *space) {
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	grow(s, "a", "p", "640Mi", 560<<20)
	s.want(s.sh("p", "cat /data/f && dd if=/dev/zero of=/data/g bs=1M count=400 2>/dev/null && echo fits"), "one\nfits")
	s.want(s.restarts("p"), "0")
}

func expandOffline(s *space) {
	s.claim("a", ext4, "64Mi")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	s.unstaged("p", s.device("a"))
	s.patch("a", "128Mi")
	eventually(s.T, "the resizer has grown it", func() error {
		if got := kubectl(s.T, "get", "pv", s.volume("a"), "-o", "jsonpath={.spec.capacity.storage}"); got != "128Mi" {
			return fmt.Errorf("the volume has %s", got)
		}
		return nil
	})
	s.pod("q", "a")
	s.ready("q")
	s.is("128Mi", "{.status.capacity.storage}", "pvc", "a")
	s.sees("q", 100<<20)
	s.want(s.sh("q", "cat /data/f"), "one")
}
