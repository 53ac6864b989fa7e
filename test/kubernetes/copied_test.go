package kubernetes

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func diskOnly(d *deployed) string {
	if d.driver == nfs || d.driver == nfsQuota {
		return "a directory is no device that somebody has exclusively"
	}
	return ""
}

// copied: a container that starts while a volume is mounted has the mount in a
// namespace of its own, and holds the device after kubelet has unmounted it. Then it
// is not taken away, the node's next pod gets the same file system, and when the
// container has gone kubelet is rid of it all. Where it can be, the volume is encrypted.
func copied(s *space) {
	class, crypt := "immediate", cryptOnly(s.d) == ""
	if crypt {
		class = "copied"
		s.encryptedClass(class)
		s.secret(volumeSecret, "encryptionKey=of the volume")
		s.secret(controlSecret, "password=of the controller")
	}
	s.claim("a", class, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	device := s.device("a")
	if crypt {
		if below, err := filepath.Glob("/sys/dev/block/" + device + "/slaves/*"); err != nil || len(below) != 1 {
			s.Fatalf("device %s is not encrypted: devices below it %v, %v", device, below, err)
		}
	}
	root, end := s.container()
	staged := filepath.Join(root, s.staged(device)) // the pod's directory goes, and with it every mount on it
	s.unstaged("p", device)
	s.refused("a", 0)

	s.pod("q", "a")
	s.ready("q")
	s.want(s.device("a"), device)
	s.want(s.sh("q", "cat /data/f && echo two > /data/g"), "one")
	if b, err := os.ReadFile(filepath.Join(staged, "g")); err != nil || string(b) != "two\n" {
		s.Errorf("the container's copy is of another file system: %q, %v", b, err)
	}
	before := s.refused("a", 0)
	s.unstaged("q", device)
	s.refused("a", before)
	if _, err := os.Stat("/sys/dev/block/" + device); err != nil {
		s.Errorf("the device was taken away below the container: %v", err)
	}
	end()
	if crypt {
		eventually(s.T, "the device is closed", func() error {
			if _, err := os.Stat("/sys/dev/block/" + device); !os.IsNotExist(err) {
				return fmt.Errorf("device %s is there: %v", device, err)
			}
			return nil
		})
	}
	s.pod("r", "a")
	s.ready("r")
	s.want(s.sh("r", "cat /data/f /data/g"), "one\ntwo")
}

// refused waits until the driver has refused to unstage a volume, which is in use, more
// often than before, and says how often.
func (s *space) refused(claim string, before int) (n int) {
	s.Helper()
	handle := s.handle(s.volume(claim))
	eventually(s.T, "the driver says that it is in use", func() error {
		calls, err := s.d.calls("NodeUnstageVolume", handle)
		n = 0
		for _, c := range calls {
			if c.code != "OK" {
				n++
			}
		}
		if err == nil && n <= before {
			err = fmt.Errorf("it did %d times", n)
		}
		return err
	})
	return n
}

// staged is where the driver has mounted a device for kubelet.
func (s *space) staged(device string) string {
	s.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == device && strings.HasSuffix(f[4], "/globalmount") {
			return f[4]
		}
	}
	s.Fatalf("device %s is staged nowhere", device)
	return ""
}

// container is a process with a copy of all mounts, which goes when it is ended, at
// the latest with the flow. Its root is as it is seen from here.
func (s *space) container() (root string, end func()) {
	s.Helper()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		s.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill() // or it has ended before
		_ = cmd.Wait()         // killed
	}
	s.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		s.Fatalf("unshare: %q, %v", line, err)
	}
	return fmt.Sprintf("/proc/%d/root", cmd.Process.Pid), end
}
