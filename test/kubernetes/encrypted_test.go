package kubernetes

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// cryptOnly: LUKS is device-mapper's.
func cryptOnly(*deployed) string {
	if misc, err := os.ReadFile("/proc/misc"); err != nil || !strings.Contains(string(misc), "device-mapper") {
		return "this kernel has no device-mapper"
	}
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		return "cryptsetup is not installed"
	}
	return ""
}

// Secrets of the flow's namespace: of the controller's calls, and of the node's.
const (
	controlSecret = "control"
	volumeSecret  = "volume-key"
)

// encrypted: the device of a volume holds LUKS, and kubelet brings its key out of a
// secret of the claim's namespace. The provisioner and the resizer bring another one,
// where their roles allow it.
func encrypted(s *space) {
	control, first, second, word := rand.Text(), rand.Text(), rand.Text(), "plaintext-"+rand.Text()
	s.encryptedClass("encrypted")
	s.secret(volumeSecret, "encryptionKey="+first)
	s.mayRead()
	s.claim("a", "encrypted", xfsSize)
	if s.d.secrets {
		s.says("the provisioner wants a secret that is not there", `secrets "`+controlSecret+`" not found`)
		s.secret(controlSecret, "password="+control)
	}
	s.bound("a")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "yes "+word+" | head -c 4194304 > /data/f && sync")
	grow(s, "a", "p", "480Mi", 400<<20)
	mapped := s.device("a")
	s.ciphered(mapped, []byte(word))

	s.unstaged("p", mapped)
	s.secret(volumeSecret, "encryptionKey="+second)
	s.pod("q", "a")
	s.says("another key does not open it", "code = Unauthenticated")
	s.secret(volumeSecret, "encryptionKey="+second, "previousEncryptionKey="+first)
	s.ready("q")
	s.intact("q", word)
	s.unstaged("q", s.device("a"))
	s.secret(volumeSecret, "encryptionKey="+second) // the key has been changed
	s.pod("r", "a")
	s.ready("r")
	s.intact("r", word)
	s.sees("r", 400<<20)
	for _, value := range []string{control, first, second} {
		s.nowhere(value)
	}
}

// encryptedClass names secrets for every call that the driver may want one with.
func (s *space) encryptedClass(name string) {
	s.Helper()
	parameters := map[string]string{"encrypted": "true"}
	of := map[string]string{"node-stage": volumeSecret, "node-expand": volumeSecret}
	if s.d.secrets {
		of["provisioner"], of["controller-expand"] = controlSecret, controlSecret
	}
	for call, secret := range of {
		parameters["csi.storage.k8s.io/"+call+"-secret-name"] = secret
		parameters["csi.storage.k8s.io/"+call+"-secret-namespace"] = "${pvc.namespace}"
	}
	apply(s.T, s.d.newClass(name, "Immediate", "Delete", parameters))
	s.Cleanup(func() { _, _ = try("", "delete", "sc", name) })
}

// secret makes one, or one anew, with these keys and values.
func (s *space) secret(name string, pairs ...string) {
	s.Helper()
	var data strings.Builder
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		fmt.Fprintf(&data, "  %s: %s\n", k, v)
	}
	// Not applied: that would keep the last one in an annotation, and merge.
	_, _ = try("", "-n", s.ns, "delete", "secret", name, "--ignore-not-found")
	if _, err := try("apiVersion: v1\nkind: Secret\nmetadata: {name: "+name+"}\nstringData:\n"+data.String(), "-n", s.ns, "create", "-f", "-"); err != nil {
		s.Fatal(err)
	}
}

// mayRead: the sidecars may get secrets where the manifests were told that classes name
// them, and may do nothing else with them; nobody else may.
func (s *space) mayRead() {
	s.Helper()
	account := "node"
	if strings.Contains(s.d.manifests, "\nkind: Deployment\n") {
		account = "controller"
	}
	for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
		want := "no"
		if verb == "get" && s.d.secrets {
			want = "yes"
		}
		// It fails when it says no.
		got, _ := try("", "auth", "can-i", verb, "secrets", "-n", s.ns, "--as=system:serviceaccount:kube-system:"+s.d.base()+"-"+account)
		if got != want {
			s.Errorf("may the sidecars %s secrets? %q, want %q", verb, got, want)
		}
	}
}

// says waits until an event of the flow's has a text.
func (s *space) says(what, text string) {
	s.Helper()
	eventually(s.T, what, func() error {
		if events := s.events(); !strings.Contains(events, text) {
			return fmt.Errorf("no event has %q:\n%s", text, events)
		}
		return nil
	})
}

// intact: the file with so many lines of a word is whole.
func (s *space) intact(pod, word string) {
	s.Helper()
	s.want(s.sh(pod, "yes "+word+" | head -c 4194304 | cmp - /data/f && echo same"), "same")
}

// device is the block device, "major:minor", that is mounted for the pods of a claim.
func (s *space) device(claim string) string {
	s.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.Fatal(err)
	}
	pv := s.volume(claim)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.Contains(f[4], "/kubernetes.io~csi/"+pv+"/") {
			return f[2]
		}
	}
	s.Fatalf("volume %s is not mounted", pv)
	return ""
}

// unstaged removes the last pod of a volume, and waits until kubelet has unstaged it:
// a pod that comes before that finds it open.
func (s *space) unstaged(pod, device string) {
	s.Helper()
	s.remove("pod", pod)
	eventually(s.T, "kubelet unstages the volume", func() error { return unmounted(" " + device + " ") })
}

// ciphered: what is written is on the device that is mounted, and on none of those
// below it, of which one begins with LUKS' header.
func (s *space) ciphered(device string, word []byte) {
	s.Helper()
	if n := s.count(device, word); n < 1000 {
		s.Fatalf("device %s, which is mounted, has the text %d times", device, n)
	}
	below, err := filepath.Glob("/sys/dev/block/" + device + "/slaves/*/dev")
	if err != nil || len(below) != 1 {
		s.Fatalf("devices below %s: %v, %v", device, below, err)
	}
	raw, err := os.ReadFile(below[0])
	if err != nil {
		s.Fatal(err)
	}
	number := strings.TrimSpace(string(raw))
	if n := s.count(number, word); n > 0 {
		s.Errorf("device %s, below it, has the text %d times", number, n)
	}
	if s.count(number, []byte("LUKS\xba\xbe")) == 0 {
		s.Errorf("device %s has no header of LUKS", number)
	}
}

// count says how often a text is on a device. (One that is cut by two reads does not
// count.)
func (s *space) count(device string, text []byte) (n int) {
	s.Helper()
	uevent, err := os.ReadFile("/sys/dev/block/" + device + "/uevent")
	if err != nil {
		s.Fatal(err)
	}
	var name string
	for line := range strings.Lines(string(uevent)) {
		if v, ok := strings.CutPrefix(line, "DEVNAME="); ok {
			name = strings.TrimSpace(v)
		}
	}
	f, err := os.Open(filepath.Join("/dev", name))
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	r, b := bufio.NewReader(f), make([]byte, 1<<20)
	for {
		got, err := io.ReadFull(r, b)
		n += bytes.Count(b[:got], text)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return n
		case err != nil:
			s.Fatal(err)
		}
	}
}

// nowhere: a secret is in no log of the driver's pods, in no event, and in nothing that
// the driver keeps.
func (s *space) nowhere(value string) {
	s.Helper()
	logs := s.d.logs(-1)
	if !strings.Contains(logs, "method=NodeStageVolume") {
		s.Error("the logs have no call")
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(value))
	for where, text := range map[string]string{"a log": logs, "an event": s.events()} {
		if strings.Contains(text, value) || strings.Contains(text, encoded) {
			s.Errorf("a secret is in %s", where)
		}
	}
	kept := 0
	err := filepath.WalkDir("/var/lib/csi-"+s.d.driver.name, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a record that was just written, or removed
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		kept++
		if bytes.Contains(b, []byte(value)) || bytes.Contains(b, []byte(encoded)) {
			s.Errorf("a secret is in %s", path)
		}
		return err
	})
	if err != nil || kept == 0 {
		s.Errorf("what the driver keeps: %d files, %v", kept, err)
	}
}
