package mounter_test

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// TestLUKSFormatAndReopen: a blank device is encrypted; restart, unstage and stage
// find it again, and what is written is not to be read on the device.
func TestLUKSFormatAndReopen(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	for _, recorder := range []bool{false, true} {
		r := newLUKSVM(t, recorder)
		r.make("v", 64*mib)
		r.stage("v", "ext4")
		r.write("v", "the plain words")
		r.publish("v", "t")
		r.restart()
		r.stage("v", "ext4")
		r.publish("v", "t")
		r.unpublish("v", "t")
		r.unstage("v")
		r.nothing()
		b, err := os.ReadFile(r.vault.file("v"))
		must(t, err)
		if strings.Contains(string(b), "the plain words") {
			t.Error("it is not encrypted")
		}
		r.stage("v", "ext4")
		r.wantFile("v", "the plain words")
		// Lost records: taken over, and closed.
		must(t, r.Close())
		must(t, os.RemoveAll(r.state))
		r.start(nil)
		r.stage("v", "ext4")
		r.wantFile("v", "the plain words")
		must(t, r.Close())
		must(t, os.RemoveAll(r.state))
		r.start(nil)
		r.unstage("v")
		r.nothing()
		if n := strings.Count(r.log.String(), "luksFormat"); n != 1 {
			t.Errorf("luksFormat ran %d times", n)
		}
	}
}

// TestLUKSOptions: what a backend may ask for is what cryptsetup makes; the
// defaults are a LUKS2 with argon2id that fits a container.
func TestLUKSOptions(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	for name, c := range map[string]struct {
		enc  backends.Encryption
		want []string
	}{
		"defaults": {backends.Encryption{Iterations: 4}, []string{"Version:       	2", "aes-xts-plain64", "argon2id", "Memory:     65536", "512 bits"}},
		"others": {backends.Encryption{Cipher: "serpent-xts-plain64", KeyBits: 256, PBKDF: "pbkdf2", Iterations: 2000, SectorSize: 4096, Discard: true},
			[]string{"serpent-xts-plain64", "pbkdf2", "Iterations: 2000", "256 bits", "sector: 4096"}},
		"adiantum": {backends.Encryption{Cipher: "xchacha20,aes-adiantum-plain64", PBKDF: "pbkdf2", Iterations: 1000}, []string{"xchacha20,aes-adiantum-plain64"}},
	} {
		r := newLUKSVM(t, false)
		r.make("v", 64*mib)
		c.enc.Key = backends.NewSecret(luksKey)
		r.vault.enc = c.enc
		err := r.Stage(t.Context(), r.stageReq("v", "ext4"))
		if name == "adiantum" && err != nil {
			t.Logf("not in this kernel: %v", err)
			continue
		}
		must(t, err)
		dump := run(t, "cryptsetup", "luksDump", r.loop("v"))
		for _, w := range c.want {
			if !strings.Contains(dump, w) {
				t.Errorf("%s: no %q in\n%s", name, w, dump)
			}
		}
		table := run(t, "dmsetup", "table", r.mappings()[0])
		if strings.Contains(table, "allow_discards") != c.enc.Discard {
			t.Errorf("%s: %s", name, table)
		}
		r.unstage("v")
		r.nothing()
	}
}

// TestLUKSWrongKeyChangesNothing, and is final.
func TestLUKSWrongKeyChangesNothing(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	r := newLUKSVM(t, true)
	r.make("v", 64*mib)
	r.stage("v", "ext4")
	r.write("v", "data")
	r.unstage("v")
	before, err := os.ReadFile(r.vault.file("v"))
	must(t, err)
	for _, previous := range []string{"", "also wrong"} {
		r.vault.enc = quick("wrong")
		r.vault.enc.PreviousKey = backends.NewSecret(previous)
		err = r.Stage(t.Context(), r.stageReq("v", "ext4"))
		wantKind(t, err, backends.ErrUnauthenticated)
		if errors.Is(err, backends.ErrUnavailable) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("got %v", err)
		}
		r.nothing()
	}
	if after, err := os.ReadFile(r.vault.file("v")); err != nil || string(after) != string(before) {
		t.Errorf("the device was changed: %v", err)
	}
	r.vault.enc = quick(luksKey)
	r.stage("v", "ext4")
	r.wantFile("v", "data")
	r.unstage("v")
}

// TestLUKSPlainAndUnasked: a plain file system is not encrypted, an encrypted one
// is not mounted without being asked to, and neither is formatted.
func TestLUKSPlainAndUnasked(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	r := newLUKSVM(t, false)
	for id, off := range map[string]bool{"plain": true, "encrypted": false} {
		r.make(id, 64*mib)
		r.vault.off = off
		r.stage(id, "ext4")
		r.write(id, "data of "+id)
		r.unstage(id)
	}
	for id, off := range map[string]bool{"plain": false, "encrypted": true} {
		r.vault.off = off
		err := r.Stage(t.Context(), r.stageReq(id, "ext4"))
		wantKind(t, err, backends.ErrPrecondition)
		if !strings.Contains(err.Error(), "encrypted") {
			t.Errorf("got %v", err)
		}
		r.nothing()
		r.vault.off = !off
		r.stage(id, "ext4")
		r.wantFile(id, "data of "+id)
		r.unstage(id)
	}
}

// TestLUKSGrowsWithDevice while it is mounted, without any key, and at the stage.
func TestLUKSGrowsWithDevice(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	for fsType, size := range map[string]int64{"ext4": 64 * mib, "xfs": 320 * mib, "btrfs": 320 * mib} {
		r := newLUKSVM(t, true)
		r.make("v", size)
		r.stage("v", fsType)
		r.write("v", "data")
		total := func() int64 {
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("staging-v")})
			must(t, err)
			return st.Total
		}
		before := total()
		must(t, os.Truncate(r.vault.file("v"), size+64*mib))
		got, err := r.Expand(t.Context(), mounter.ExpandRequest{
			ID: "v", Path: r.path("staging-v"), Range: backends.CapacityRange{Required: size + 64*mib},
		})
		if err != nil || got != size+64*mib {
			t.Fatalf("%s: %d, %v", fsType, got, err)
		}
		middle := total()
		r.unstage("v")
		must(t, os.Truncate(r.vault.file("v"), size+128*mib))
		run(t, "losetup", "-c", r.loop("v"))
		r.stage("v", fsType)
		if after := total(); middle < before+48*mib || after < middle+48*mib {
			t.Errorf("%s: %d, %d, %d", fsType, before, middle, after)
		}
		r.wantFile("v", "data")
		r.unstage("v")
		r.nothing()
	}
}

// TestLUKSRawBlock: the target is the mapping's node, read-only when asked.
func TestLUKSRawBlock(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	r := newLUKSVM(t, true)
	r.make("v", 64*mib)
	use := func(ro bool, f func(target string)) {
		stage, publish := r.stageReq("v", ""), r.publishReq("v", "t")
		stage.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
		if ro {
			stage.Capability.Mode = backends.SingleNodeReader
		}
		publish.Capability = stage.Capability
		must(t, r.Stage(t.Context(), stage))
		must(t, r.Publish(t.Context(), publish))
		st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
		if err != nil || st.Total != 48*mib {
			t.Errorf("%+v, %v", st, err)
		}
		f(r.path("t"))
		r.unpublish("v", "t")
		r.unstage("v")
		r.nothing()
	}
	use(false, func(target string) {
		must(t, os.WriteFile(target, []byte("raw words"), 0))
		run(t, "sync")
	})
	use(true, func(target string) {
		b := make([]byte, 9)
		f, err := os.Open(target)
		must(t, err)
		_, err = f.ReadAt(b, 0)
		if must(t, f.Close()); err != nil || string(b) != "raw words" {
			t.Errorf("read %q, %v", b, err)
		}
		if err := os.WriteFile(target, []byte("x"), 0); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			t.Errorf("write: %v", err)
		}
	})
	if b, _ := os.ReadFile(r.vault.file("v")); strings.Contains(string(b), "raw words") {
		t.Error("it is not encrypted")
	}
	err := r.Stage(t.Context(), r.stageReq("v", "ext4")) // its user's data is noise to csikit
	wantKind(t, err, backends.ErrPrecondition)
	r.nothing()
}

// TestLUKSCopies: a volume and its copy, with one LUKS UUID and one file system's
// UUID, on one node; the copy gets a key of its own.
func TestLUKSCopies(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	for fsType, size := range map[string]int64{"ext4": 64 * mib, "xfs": 320 * mib, "btrfs": 320 * mib} {
		r := newLUKSVM(t, false)
		r.make("v", size)
		r.stage("v", fsType)
		r.write("v", "data")
		run(t, "sync")
		run(t, "cp", r.vault.file("v"), r.vault.file("w"))
		r.attach("w")
		r.vault.enc = quick("the copy's own")
		r.vault.enc.PreviousKey = backends.NewSecret(luksKey)
		r.stage("w", fsType)
		r.wantFile("w", "data")
		r.write("w", "changed")
		r.wantFile("v", "data")
		if len(r.mappings()) != 2 || r.opens("w", luksKey) || !r.opens("v", luksKey) {
			t.Errorf("mappings %v", r.mappings())
		}
		r.unstage("w")
		r.unstage("v")
		r.nothing()
	}
}

// TestLUKSForeignMapping: the volume's device is open by another name, or another
// device by the volume's: both stay as they are.
func TestLUKSForeignMapping(t *testing.T) {
	if !testenv.InVM(t) {
		return
	}
	r := newLUKSVM(t, false)
	r.make("v", 64*mib)
	r.stage("v", "ext4")
	name := r.mappings()[0]
	r.unstage("v")
	open := func(dev, name string) {
		cmd := exec.Command("cryptsetup", "open", "--key-file=-", dev, name)
		cmd.Stdin = strings.NewReader(luksKey)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	open(r.loop("v"), "somebody")
	wantKind(t, r.Stage(t.Context(), r.stageReq("v", "ext4")), backends.ErrUnavailable)
	if !slices.Equal(r.mappings(), []string{"somebody"}) {
		t.Errorf("mappings %v", r.mappings())
	}
	run(t, "cryptsetup", "close", "somebody")
	run(t, "cp", r.vault.file("v"), r.vault.file("w"))
	r.attach("w")
	open(r.loop("w"), name)
	err := r.Stage(t.Context(), r.stageReq("v", "ext4"))
	if err == nil || !slices.Equal(r.mappings(), []string{name}) {
		t.Errorf("%v, mappings %v", err, r.mappings())
	}
	run(t, "cryptsetup", "close", name)
	r.stage("v", "ext4")
	r.unstage("v")
	r.nothing()
}
