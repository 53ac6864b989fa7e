package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A record of each version that was ever written is read by every later release.
func TestGolden(t *testing.T) {
	when := time.Date(2026, 11, 22, 1, 2, 3, 4, time.UTC)
	r := record{Key: "CreateVolume pvc/1", Began: when, Updated: when.Add(time.Minute), Data: []byte(`{"try":2}`)}
	golden := filepath.Join("testdata", "v1.intent")
	if *update {
		b, err := encode(&r)
		if err == nil {
			err = os.WriteFile(golden, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(b)
	if err != nil || got.Key != r.Key || !got.Began.Equal(r.Began) || !got.Updated.Equal(r.Updated) || string(got.Data) != string(r.Data) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if b2, err := encode(&r); err != nil || string(b2) != string(b) {
		t.Errorf("this release writes another form without another version:\n%s\n%s", b2, b)
	}
}

// A record that was cut short or changed anywhere is refused.
func TestDamagedRecord(t *testing.T) {
	b, err := encode(&record{Key: "a", Data: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if _, err := decode(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
		for _, bit := range []byte{1, 4, 0x20, 0x80} {
			c := append([]byte(nil), b...)
			c[i] ^= bit
			if r, err := decode(c); err == nil && (r.Key != "a" || string(r.Data) != "1") {
				t.Errorf("byte %d changed to %q: read as %+v", i, c[i], r)
			}
		}
	}
	for _, text := range []string{"", "\n", "csikit-intent\n", "csikit-intent 0 00000000\n{}", "x 1 00000000\n{}"} {
		if _, err := decode([]byte(text)); !errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "%!") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// One record that cannot be read is refused by name and kept; all others work.
func TestRefusedRecord(t *testing.T) {
	newer := []byte(strings.Replace(string(must(encode(&record{Key: "bad"}))), " 1 ", " 2 ", 1))
	for name, tt := range map[string]struct {
		put  func(path string) error
		want error
	}{
		"torn":      {func(p string) error { return os.WriteFile(p, newer[:20], 0o600) }, ErrNewer},
		"empty":     {func(p string) error { return os.WriteFile(p, nil, 0o600) }, ErrCorrupt},
		"newer":     {func(p string) error { return os.WriteFile(p, newer, 0o600) }, ErrNewer},
		"huge":      {func(p string) error { return os.WriteFile(p, make([]byte, maxSize+1), 0o600) }, ErrCorrupt},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, ErrCorrupt},
		"link":      {func(p string) error { return os.Symlink("/etc/hostname", p) }, ErrCorrupt},
		"of another key": {func(p string) error {
			return os.WriteFile(p, must(encode(&record{Key: "other"})), 0o600)
		}, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			j := open(t, t.TempDir(), &Options{Max: 2})
			begin(t, j, "good", attempt{1}).Leave()
			bad := j.path(fileName("bad"))
			if err := tt.put(bad); err != nil {
				t.Fatal(err)
			}
			j = reopen(t, j)
			all := j.Refused()
			if len(all) != 1 || all[0].File != bad || !errors.Is(all[0], tt.want) {
				t.Fatalf("refused: %v", all)
			}
			_, err := j.Begin("bad", nil)
			if re, ok := errors.AsType[*RecordError](err); !ok || re.File != bad || !strings.Contains(err.Error(), bad) {
				t.Errorf("begun over it: %v", err)
			}
			seen := ""
			if err := j.Replay(t.Context(), func(_ context.Context, in *Intent) error { seen += in.Key(); return nil }); err != nil || seen != "good" {
				t.Errorf("replayed %q: %v", seen, err)
			}
			if _, err := j.Begin("third", nil); !errors.Is(err, ErrFull) {
				t.Errorf("a refused one is not counted: %v", err)
			}
			wantTry(t, begin(t, j, "good", nil), 1)
			if _, err := os.Lstat(bad); err != nil {
				t.Errorf("it is gone: %v", err)
			}
		})
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// When the disk fails the journal says so, and what it then holds is the safe side:
// an intent that may be there counts as there.
func TestDiskFails(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	a := begin(t, j, "a", attempt{1})
	obstacle := j.path(fileName("a") + temporary)
	block := func() {
		if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	block()
	if err := a.Update(attempt{2}); err == nil {
		t.Fatal("written through a directory")
	}
	wantTry(t, a, 1)
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	// The record's own name is taken: the rename fails, and nobody knows.
	path := j.path(fileName("a"))
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := a.Update(attempt{3}); err == nil {
		t.Fatal("renamed over a directory")
	}
	if err := a.Finish(); err == nil {
		t.Fatal("removed a directory that is not empty")
	}
	a.Leave()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	again := begin(t, j, "a", nil)
	if !again.Earlier() {
		t.Error("an intent that may be on the disk is forgotten")
	}
	wantTry(t, again, 3)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("taken again without being on the disk: %v", err)
	}
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()

	// A process begins to make a volume and is killed.
	j, err := Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	in, err := j.Begin("CreateVolume pvc-1", map[string]int{"try": 1})
	fmt.Println("earlier:", in.Earlier(), err)
	_ = j.Close()

	// The next one finds the intent, looks, and sees what became of it.
	if j, err = Open(dir, nil); err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = j.Close() }()
	err = j.Replay(context.Background(), func(_ context.Context, in *Intent) error {
		fmt.Println("looking for what is left of", in.Key())
		return in.Finish()
	})
	fmt.Println("unknown:", len(j.Leaks(0)), err)
	// Output:
	// earlier: false <nil>
	// looking for what is left of CreateVolume pvc-1
	// unknown: 0 <nil>
}
