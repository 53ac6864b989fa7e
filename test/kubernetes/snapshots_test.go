package kubernetes

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

func snapshot(s *space, name, claim string) {
	s.Helper()
	s.wantSnapshot(name, claim)
	s.is("true", "{.status.readyToUse}", "volumesnapshot", name)
}

func (s *space) wantSnapshot(name, claim string) {
	s.Helper()
	s.apply(fmt.Sprintf(`apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: %s}
spec: {volumeSnapshotClassName: %s, source: {persistentVolumeClaimName: %s}}
`, name, s.d.base(), claim))
}

func snapshots(s *space) {
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	snapshot(s, "s", "a")
	s.sh("p", "echo two > /data/f && sync")
	s.claim("restored", xfs, "400Mi", "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: s}")
	s.claim("clone", xfs, xfsSize, "dataSource: {kind: PersistentVolumeClaim, name: a}")
	s.pod("pr", "restored")
	s.pod("pc", "clone")
	s.ready("pr", "pc")
	s.want(s.sh("pr", "cat /data/f"), "one")
	s.want(s.sh("pc", "cat /data/f"), "two")
	s.sees("pr", 330<<20)
}

// groups: the snapshots of a group are of one moment. A pod writes a number to the first
// volume, then to the second one, and then the next: no moment has more in the second.
func groups(s *space) {
	for _, v := range []string{"a", "b"} {
		s.claim(v, xfs, xfsSize)
		kubectl(s.T, "-n", s.ns, "label", "pvc", v, "group=g")
	}
	s.podOf("p", "persistentVolumeClaim: {claimName: a}}, {name: w, persistentVolumeClaim: {claimName: b}", "volumeMounts: [{name: v, mountPath: /a}, {name: w, mountPath: /b}]")
	s.ready("p")
	s.sh("p", `echo a > /a/name; echo b > /b/name; sync
		setsid sh -c 'i=10000000; while :; do i=$((i+1)); for v in a b; do printf $i | dd of=/$v/f conv=notrunc,fsync; done; done' </dev/null >/dev/null 2>&1 &`)
	written := func() int { return s.number("p", "/b/f") }
	eventually(s.T, "the pod writes", func() error {
		if written() < 10000005 {
			return errors.New("it has written little")
		}
		return nil
	})
	before := written()
	s.apply(fmt.Sprintf(`apiVersion: groupsnapshot.storage.k8s.io/v1
kind: VolumeGroupSnapshot
metadata: {name: g}
spec: {volumeGroupSnapshotClassName: %s, source: {selector: {matchLabels: {group: g}}}}
`, s.d.base()))
	s.is("true", "{.status.readyToUse}", "volumegroupsnapshot", "g")
	after := written()
	members := strings.Fields(s.get("{.items[*].metadata.name}", "volumesnapshot"))
	if len(members) != 2 {
		s.Fatalf("members: %v", members)
	}
	numbers := map[string]int{}
	for i, m := range members {
		of, name := s.get("{.spec.source.persistentVolumeClaimName}", "volumesnapshot", m), "r"+strconv.Itoa(i)
		s.claim(name, xfs, xfsSize, "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: "+m+"}")
		s.pod(name, name)
		s.ready(name)
		s.want(s.sh(name, "cat /data/name"), of)
		numbers[of] = s.number(name, "/data/f")
	}
	s.Logf("written before %d, in the snapshots %v, after %d", before, numbers, after)
	if a, b := numbers["a"], numbers["b"]; b < before || a > after+1 || a != b && a != b+1 {
		s.Errorf("not one moment between %d and %d: %v", before, after, numbers)
	}
}

// number is what a file of a pod holds.
func (s *space) number(pod, file string) int {
	s.Helper()
	n, err := strconv.Atoi(s.sh(pod, "cat "+file+" || echo 0"))
	if err != nil {
		s.Error(err)
	}
	return n
}
