package kubernetes

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const metadataSecret = "snapshot-metadata"

// metadataHost is the name of the Service.
func (d *driver) metadataHost() string { return d.base() + "-snapshot-metadata.kube-system" }

func metadataBuilt() bool {
	for _, p := range []string{"csi-snapshot-metadata", "snapshot-metadata-lister"} {
		if _, err := os.Stat(filepath.Join(binaries(), p)); err != nil {
			return false
		}
	}
	return true
}

func metadataOnly(d *deployed) string {
	switch {
	case d.local:
		return "a Service cannot tell which node's sidecar to ask"
	case !d.metadata:
		return "deployed without its sidecar"
	case !metadataBuilt():
		return "csi-snapshot-metadata is not built (build.sh snapmd)"
	}
	return ""
}

// metadataFlags makes the secret with the sidecar's certificate, and says what
// csikit manifests must be told of it.
func metadataFlags(t *testing.T, d *driver) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// Its own CA: programs are given it by the SnapshotMetadataService.
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{d.metadataHost()}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	der, err2 := x509.MarshalPKCS8PrivateKey(key)
	dir := t.TempDir()
	crt, private := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := errors.Join(err, err2,
		os.WriteFile(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", "kube-system", "create", "secret", "tls", metadataSecret, "--cert="+crt, "--key="+private)
	t.Cleanup(func() { kubectl(t, "-n", "kube-system", "delete", "secret", metadataSecret) })
	return []string{"-snapshot-metadata-tls", metadataSecret, "-snapshot-metadata-ca", crt}
}

// extent is a range of bytes.
type extent struct{ offset, size int64 }

// covers tells whether list has every byte of e.
func covers(list []extent, e extent) bool {
	for _, l := range list { // ascending, and without overlaps
		if l.offset <= e.offset && e.offset < l.offset+l.size {
			done := l.offset + l.size - e.offset
			e.offset, e.size = e.offset+done, e.size-done
			if e.size <= 0 {
				return true
			}
		}
	}
	return false
}

func touches(list []extent, e extent) bool {
	for _, l := range list {
		if l.offset < e.offset+e.size && e.offset < l.offset+l.size {
			return true
		}
	}
	return false
}

// ask asks as a backup program does: it finds the service by its object in the API,
// gets a token for it, and talks to it over TLS.
func (s *space) ask(account, snapshot, since string) ([]extent, error) {
	cmd := exec.Command(filepath.Join(binaries(), "snapshot-metadata-lister"), "-kubeconfig", filepath.Join(state(), "admin.kubeconfig"),
		"-namespace", s.ns, "-snapshot", snapshot, "-since", since, "-account", account, "-account-namespace", s.ns)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, &said)
	}
	var list []extent
	for line := range strings.Lines(out.String()) {
		var e extent
		if _, err := fmt.Sscan(line, &e.offset, &e.size); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// snapshotMetadata: what a backup of changed blocks hears of two snapshots.
func snapshotMetadata(s *space) {
	s.resolve(s.d.driver.metadataHost(), kubectl(s.T, "-n", "kube-system", "get", "pod", s.d.pod(), "-o", "jsonpath={.status.podIP}"))
	s.claim("a", xfs, "64Mi", "volumeMode: Block")
	s.blockPod("p", "a")
	s.ready("p")
	// The second one is a part of a block, whatever that is.
	first, second, never := extent{4 << 20, 1 << 20}, extent{16<<20 + 20<<10, 4 << 10}, extent{32 << 20, 16 << 20}
	s.sh("p", "dd if=/dev/urandom of=/dev/xvda bs=1M seek=4 count=1 conv=fsync 2>/dev/null")
	snapshot(s, "one", "a")
	s.sh("p", "dd if=/dev/urandom of=/dev/xvda bs=4k seek=4101 count=1 conv=fsync 2>/dev/null")
	snapshot(s, "two", "a")

	kubectl(s.T, "-n", s.ns, "create", "serviceaccount", "backup")
	if _, err := s.ask("backup", "one", ""); err == nil || !strings.Contains(err.Error(), "PermissionDenied") {
		s.Errorf("an account that may not see the snapshots: %v", err)
	}
	kubectl(s.T, "-n", s.ns, "create", "role", "backup", "--verb=get", "--resource=volumesnapshots.snapshot.storage.k8s.io")
	kubectl(s.T, "-n", s.ns, "create", "rolebinding", "backup", "--role=backup", "--serviceaccount="+s.ns+":backup")

	for _, tt := range []struct {
		snapshot, since string
		want            []extent
		not             []extent
	}{
		{"one", "", []extent{first}, []extent{second, never}},
		{"two", "", []extent{first, second}, []extent{never}},
		// Without reflinks it may be told more than differs, but not what neither has.
		{"two", "one", []extent{second}, []extent{never}},
	} {
		got, err := s.ask("backup", tt.snapshot, tt.since)
		s.Logf("%s since %q: %v, %v", tt.snapshot, tt.since, got, err)
		if err != nil {
			s.Errorf("%s since %q: %v", tt.snapshot, tt.since, err)
		}
		for _, e := range tt.want {
			if !covers(got, e) {
				s.Errorf("%s since %q lacks %v: %v", tt.snapshot, tt.since, e, got)
			}
		}
		s.exact(got, tt.want)
		for _, e := range tt.not {
			if touches(got, e) {
				s.Errorf("%s since %q has %v: %v", tt.snapshot, tt.since, e, got)
			}
		}
	}
}

// exact: no more is told than the blocks that want is in, where the driver knows them.
func (s *space) exact(got, want []extent) {
	s.Helper()
	if s.d.granularity == nil {
		return
	}
	block, err := s.d.granularity()
	if err != nil || block < 4<<10 || block > 1<<20 {
		s.Fatalf("blocks of %d bytes, %v", block, err)
	}
	var blocks []extent
	for _, e := range want {
		begin := e.offset / block * block
		blocks = append(blocks, extent{begin, (e.offset+e.size+block-1)/block*block - begin})
	}
	if got = joined(got); !slices.Equal(got, blocks) {
		s.Errorf("to blocks of %d bytes it is %v, want %v", block, got, blocks)
	}
}

// joined are ranges of which none begins where another ends.
func joined(list []extent) (all []extent) {
	for _, e := range list {
		if n := len(all) - 1; n >= 0 && all[n].offset+all[n].size == e.offset {
			all[n].size += e.size
			continue
		}
		all = append(all, e)
	}
	return all
}

// resolve stands in for the cluster's DNS, in this mount namespace.
func (s *space) resolve(host, address string) {
	s.Helper()
	file := filepath.Join(s.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("127.0.0.1 localhost\n"+address+" "+host+"\n"), 0o644); err != nil {
		s.Fatal(err)
	}
	if out, err := exec.Command("mount", "--bind", file, "/etc/hosts").CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	s.Cleanup(func() {
		if out, err := exec.Command("umount", "/etc/hosts").CombinedOutput(); err != nil {
			s.Errorf("%v: %s", err, out)
		}
	})
}
