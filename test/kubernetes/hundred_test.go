package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// hundred: 100 claims and pods at once, timed. Each pod adds its name to a file of its
// volume; each file then has no other name, and lies on a device of its own. When pods
// and claims are deleted nothing is left of them.
func hundred(s *space) {
	const n = 100
	began := time.Now()
	s.apply(s.crowd(n))
	end := began.Add(8 * time.Minute)
	for {
		out := s.get(`{range .items[*]}{.status.phase}{"\n"}{end}`, "pod")
		if strings.Count(out, "Running") == n {
			break
		}
		if time.Now().After(end) {
			s.Fatalf("after %v %d of %d pods run", time.Since(began), strings.Count(out, "Running"), n)
		}
		time.Sleep(500 * time.Millisecond)
	}
	running := time.Since(began)
	s.has(n, "each claim has a volume on the storage")
	volumes := s.eachItsOwn(n)
	files := s.backing(n)

	began = time.Now()
	kubectl(s.T, "-n", s.ns, "delete", "pod", "--all", "--timeout=400s")
	kubectl(s.T, "-n", s.ns, "delete", "pvc", "--all", "--timeout=400s")
	eventually(s.T, "all volumes are deleted", func() error {
		out, err := try("", "get", "pv", "--no-headers")
		if err == nil && strings.Contains(out, s.ns+"/") {
			err = errors.New("volumes are left")
		}
		return err
	})
	s.Logf("%d pods with a volume each run after %.1f s; all deleted after %.1f s more", n, running.Seconds(), time.Since(began).Seconds())
	s.has(0, "the volumes are gone from the storage")
	eventually(s.T, "their mounts go", func() error { return unmounted(volumes...) })
	eventually(s.T, "their loop devices go", func() error {
		attached, err := loops()
		for loop, file := range attached {
			if slices.Contains(files, file) {
				err = errors.Join(err, fmt.Errorf("%s is left", loop))
			}
		}
		return err
	})
}

// crowd is so many claims and pods.
func (s *space) crowd(n int) string {
	var yaml strings.Builder
	for i := range n {
		fmt.Fprintf(&yaml, `---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %[1]s}
spec: {storageClassName: %[2]s, accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s}
spec:
  terminationGracePeriodSeconds: 0
  dnsPolicy: Default
  containers: [{name: c, image: %[3]q, imagePullPolicy: Never, command: [sh, -c, "echo %[1]s >> /data/names && sync /data/names && exec sleep 100000"], volumeMounts: [{name: v, mountPath: /data}]}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: %[1]s}}]
`, fmt.Sprintf("x%02d", i), s.d.class(ext4), image)
	}
	return yaml.String()
}

// eachItsOwn waits until the file of each of n pods has the pod's name and no other, and
// looks whether each is on another device. It returns the volumes' names.
func (s *space) eachItsOwn(n int) (volumes []string) {
	s.Helper()
	out := s.get(`{range .items[*]}{.metadata.name} {.metadata.uid} {end}`, "pod")
	uids := strings.Fields(out)
	out = s.get(`{range .items[*]}{.metadata.name} {.spec.volumeName} {end}`, "pvc")
	claims := strings.Fields(out)
	if len(uids) != 2*n || len(claims) != 2*n {
		s.Fatalf("%d pods, %d claims", len(uids)/2, len(claims)/2)
	}
	devices := map[uint64]string{}
	for i := 0; i < 2*n; i += 2 {
		pod, volume := uids[i], claims[i+1] // both lists are by name
		if claims[i] != pod {
			s.Fatalf("claim %s stands where pod %s does", claims[i], pod)
		}
		file := filepath.Join("/var/lib/kubelet/pods", uids[i+1], "volumes/kubernetes.io~csi", volume, "mount/names")
		eventually(s.T, "pod "+pod+" has written its name, and nobody else's is there", func() error {
			b, err := os.ReadFile(file)
			names := strings.Fields(string(b)) // one for each start of the container
			if err == nil && !slices.Equal(slices.Compact(names), []string{pod}) {
				err = fmt.Errorf("%s holds %q", file, b)
			}
			return err
		})
		var st syscall.Stat_t
		if err := syscall.Stat(file, &st); err != nil {
			s.Fatal(err)
		}
		dev := uint64(st.Dev) //nolint:unconvert // 32 bits on some platforms
		if other, ok := devices[dev]; ok {
			s.Errorf("pods %s and %s write to the same device", pod, other)
		}
		devices[dev] = pod
		volumes = append(volumes, volume)
	}
	return volumes
}

// backing are the files of the flow's volumes, as loops names them; a loop device has
// each of them.
func (s *space) backing(n int) (files []string) {
	s.Helper()
	made, err := s.made()
	if err != nil {
		s.Fatal(err)
	}
	for _, path := range made {
		file, err := backed(path)
		if err != nil {
			s.Fatal(err)
		}
		files = append(files, file)
	}
	attached, err := loops()
	if err != nil {
		s.Fatal(err)
	}
	found := 0
	for _, file := range attached {
		if slices.Contains(files, file) {
			found++
		}
	}
	if len(files) != n || found != n {
		s.Errorf("%d files of %d volumes, and loop devices of %d", len(files), n, found)
	}
	return files
}

// backed is a file as loops names it.
func backed(path string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}
	dev := uint64(st.Dev) //nolint:unconvert // 32 bits on some platforms
	return fmt.Sprintf("%d:%d %d", dev>>8&0xfff, dev&0xff|dev>>12&^0xff, st.Ino), nil
}

// loops are the loop devices of this machine, each with its file's device and inode:
// the names that files have are those of other mount namespaces.
func loops() (map[string]string, error) {
	out, err := exec.Command("losetup", "--list", "--noheadings", "--output", "NAME,BACK-MAJ:MIN,BACK-INO").Output()
	if err != nil {
		return nil, fmt.Errorf("losetup: %w", err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 {
			all[f[0]] = f[1] + " " + f[2]
		}
	}
	return all, nil
}
