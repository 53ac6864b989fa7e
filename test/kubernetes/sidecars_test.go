package kubernetes

import (
	"fmt"
	"strconv"
	"strings"
)

// killSidecars: what is asked for before a sidecar is killed, and while it is away, is
// done by the next one, and once.
func killSidecars(s *space) {
	before := s.containers()
	claims := func(from, to int) (names []string) {
		for i := from; i < to; i++ {
			names = append(names, "c"+strconv.Itoa(i))
			s.claim("c"+strconv.Itoa(i), "immediate", xfsSize)
		}
		return names
	}
	all := claims(0, 3)
	kill(s, "/csi-provisioner")
	all = append(all, claims(3, 6)...)
	s.bound(all...)
	s.restarted(before, "csi-provisioner", 1)
	s.has(6, "each claim has one volume")

	if s.d.attach {
		s.pod("p", "c1")
		kill(s, "/csi-attacher")
		s.ready("p")
		s.restarted(before, "csi-attacher", 1)
	}
	if s.d.has("csi-resizer") {
		s.patch("c0", "384Mi")
		kill(s, "/csi-resizer")
		// A claim that no pod uses keeps its size until one does.
		is(s.T, "384Mi", "{.spec.capacity.storage}", "pv", s.volume("c0"))
		s.restarted(before, "csi-resizer", 1)
	}
	s.wantSnapshot("s", "c0")
	kill(s, "/csi-snapshotter")
	s.wantSnapshot("later", "c0")
	for _, name := range []string{"s", "later"} {
		s.is("true", "{.status.readyToUse}", "volumesnapshot", name)
	}
	s.restarted(before, "csi-snapshotter", 1)
}

// has tells whether the driver is deployed with a sidecar.
func (d *deployed) has(sidecar string) bool {
	return strings.Contains(d.manifests, "name: "+sidecar+"\n")
}

// containers are those of the driver's pods, and how often each was started again.
func (s *space) containers() map[string]int {
	s.Helper()
	out := kubectl(s.T, "-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/name="+s.d.base(), "-o",
		`jsonpath={range .items[*].status.containerStatuses[*]}{.name} {.restartCount}{"\n"}{end}`)
	counts := map[string]int{}
	for line := range strings.Lines(out) {
		name, count, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(count)
		if err != nil {
			s.Fatalf("%q: %v", out, err)
		}
		counts[name] += n // a driver in two halves has two
	}
	return counts
}

// restarted waits until a container of the driver's pods was started again so often.
func (s *space) restarted(before map[string]int, name string, times int) {
	s.Helper()
	eventually(s.T, name+" is started again", func() error {
		if n := s.containers()[name] - before[name]; n < times {
			return fmt.Errorf("it was %d times, want %d", n, times)
		}
		return nil
	})
}

// restarts is how often the container of a pod was started again.
func (s *space) restarts(pod string) string {
	s.Helper()
	return s.get("{.status.containerStatuses[0].restartCount}", "pod", pod)
}
