package mounter

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// cryptsetupFile formats a file, which needs neither root nor a device-mapper.
func cryptsetupFile(t testing.TB, args ...string) string {
	t.Helper()
	testenv.Tool(t, "cryptsetup")
	file := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 32<<20); err != nil {
		t.Fatal(err)
	}
	cryptsetupOn(t, "key", append(append([]string{"luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file=-"}, args...), file)...)
	return file
}

func cryptsetupOn(t testing.TB, key string, args ...string) {
	t.Helper()
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(key)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cryptsetup %v: %v\n%s", args, err, out)
	}
}

func headerOf(t testing.TB, file string) LUKSHeader {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseLUKS(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const someUUID = "65bf2e84-4e7b-48c7-8fce-e0c96377143f"

// TestLUKSHeaderByCryptsetup: what cryptsetup writes is what is read.
func TestLUKSHeaderByCryptsetup(t *testing.T) {
	v2 := []string{"--type", "luks2", "--uuid", someUUID, "--sector-size", "512"}
	file := cryptsetupFile(t, append(v2, "--subsystem", LUKSNew)...)
	want := LUKSHeader{Valid: true, Version: 2, UUID: someUUID, Mark: LUKSNew, Slots: []int{0}, Offset: 16 << 20, Sector: 512}
	check := func() {
		t.Helper()
		if got := headerOf(t, file); !reflect.DeepEqual(got, want) {
			t.Errorf("read %#v, want %#v", got, want)
		}
	}
	check()
	cryptsetupOn(t, "", "config", "--subsystem", LUKSUsed, file)
	want.Mark = LUKSUsed
	check()
	second := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(second, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	cryptsetupOn(t, "key", "luksAddKey", "-q", "--key-file=-", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", file, second)
	want.Slots = []int{0, 1}
	check()
	cryptsetupOn(t, "second", "luksKillSlot", "--key-file=-", file, "0")
	want.Slots = []int{1}
	check()
	cryptsetupOn(t, "", "config", "--subsystem", "of an administrator", file)
	want.Mark = ""
	check()
	if h := headerOf(t, cryptsetupFile(t, append(v2, "--luks2-metadata-size", "64k", "--sector-size", "4096")...)); h.UUID != someUUID || h.Sector != 4096 || h.room(32<<20+512) != 16<<20 {
		t.Errorf("read %+v", h)
	}
	one := headerOf(t, cryptsetupFile(t, "--type", "luks1", "--uuid", someUUID))
	if !reflect.DeepEqual(one, LUKSHeader{Valid: true, Version: 1, UUID: someUUID, Slots: []int{0}, Offset: one.Offset}) || one.Offset == 0 {
		t.Errorf("read %+v", one)
	}
}

// TestLUKSHeaderTorn: the copy that is whole counts, and of two the later one.
func TestLUKSHeaderTorn(t *testing.T) {
	file := cryptsetupFile(t, "--type", "luks2", "--subsystem", LUKSNew)
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cryptsetupOn(t, "", "config", "--subsystem", LUKSUsed, file)
	now, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const second = 16 << 10
	for name, c := range map[string]struct {
		change func(b []byte)
		mark   string
	}{
		"first torn":                 {func(b []byte) { b[5000]++ }, LUKSUsed},
		"first without a magic":      {func(b []byte) { clear(b[:8]) }, LUKSUsed},
		"second torn":                {func(b []byte) { b[second+5000]++ }, LUKSUsed},
		"second not written yet":     {func(b []byte) { copy(b[second:2*second], old[second:]) }, LUKSUsed},
		"first torn, second not yet": {func(b []byte) { copy(b[second:2*second], old[second:]); b[300]++ }, LUKSNew},
		"both torn":                  {func(b []byte) { b[5000]++; b[second+5000]++ }, ""},
		"nothing":                    {func(b []byte) { clear(b) }, ""},
	} {
		b := bytes.Clone(now)
		c.change(b)
		h, err := parseLUKS(bytes.NewReader(b), int64(len(b)))
		if err != nil || h.Mark != c.mark || h.Valid != (c.mark != "") {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

// FuzzLUKSHeader: whatever is on a device, it is read without a panic.
func FuzzLUKSHeader(f *testing.F) {
	b := make([]byte, 64<<10)
	copy(b, "LUKS\xba\xbe\x00\x02")
	f.Add(b)
	f.Add([]byte("LUKS\xba\xbe\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseLUKS(bytes.NewReader(b), int64(len(b)))
		if err == nil && h.Valid && h.room(1<<40) < 0 {
			t.Errorf("%+v", h)
		}
		var l LUKSHeader
		_ = l.metadata(b)
	})
}
