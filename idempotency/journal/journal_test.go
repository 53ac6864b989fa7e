package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

var update = flag.Bool("update", false, "write the golden files")

type attempt struct {
	Try int `json:"try"`
}

func open(t *testing.T, dir string, o *Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func begin(t *testing.T, j *Journal, key string, data any) *Intent {
	t.Helper()
	in, err := j.Begin(key, data)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// reopen is what the next process does.
func reopen(t *testing.T, j *Journal) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, j.dir.Name(), &j.o)
}

func files(t *testing.T, j *Journal) []string {
	t.Helper()
	all, err := filepath.Glob(j.path("*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantTry(t *testing.T, in *Intent, want int) {
	t.Helper()
	var a attempt
	if err := in.Decode(&a); err != nil || a.Try != want {
		t.Errorf("data %+v, %v; want try %d", a, err, want)
	}
}

func TestIntentOutlivesTheProcess(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "a", "b"), nil)
	in := begin(t, j, "create v", attempt{1})
	if in.Earlier() {
		t.Error("a new one is an earlier one")
	}
	if _, err := j.Begin("create v", nil); !errors.Is(err, ErrActive) {
		t.Errorf("taken twice: %v", err)
	}
	if err := in.Update(attempt{2}); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j)
	again := begin(t, j, "create v", attempt{7})
	if !again.Earlier() || !again.Began().Equal(in.Began()) || !again.Updated().Equal(in.Updated()) {
		t.Errorf("earlier %v, begun %v, updated %v", again.Earlier(), again.Began(), again.Updated())
	}
	wantTry(t, again, 2)
	again.Leave()
	again = begin(t, j, "create v", nil)
	if err := again.Finish(); err != nil {
		t.Fatal(err)
	}
	again.Leave()
	if err := again.Update(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("changed after its end: %v", err)
	}
	if left := files(t, j); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if in := begin(t, reopen(t, j), "create v", nil); in.Earlier() {
		t.Error("finished, and there")
	}
}

func TestOneProcessHasTheJournal(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	if _, err := Open(j.dir.Name(), nil); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	reopen(t, j)
}

func TestClosed(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	in := begin(t, j, "a", nil)
	begin(t, j, "b", nil).Leave()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := j.Begin("c", nil)
	for what, err := range map[string]error{
		"begin": err, "update": in.Update(1), "finish": in.Finish(),
		"replay": j.Replay(t.Context(), func(context.Context, *Intent) error { return nil }),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	in.Leave()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestReplay(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		j := open(t, t.TempDir(), nil)
		for _, key := range []string{"c", "a", "b", "busy"} {
			begin(t, j, key, nil).Leave()
			time.Sleep(time.Second)
		}
		busy := begin(t, j, "busy", nil)
		defer busy.Leave()
		unknown := errors.New("still unknown")
		var seen []string
		err := j.Replay(t.Context(), func(_ context.Context, in *Intent) error {
			seen = append(seen, in.Key())
			if in.Key() == "a" {
				return unknown
			}
			return in.Finish()
		})
		if got := strings.Join(seen, " "); got != "c a b" {
			t.Errorf("replayed %s", got)
		}
		if !errors.Is(err, unknown) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("error %v", err)
		}
		if left := j.Leaks(0); len(left) != 1 || left[0].Key != "a" {
			t.Errorf("left %v", left)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := j.Replay(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestLeaks(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		j := open(t, t.TempDir(), nil)
		begin(t, j, "old", attempt{3}).Leave()
		busy := begin(t, j, "busy", nil)
		time.Sleep(time.Hour)
		begin(t, j, "new", nil).Leave()
		all := j.Leaks(time.Minute)
		if len(all) != 1 || all[0].Key != "old" || string(all[0].Data) != `{"try":3}` {
			t.Fatalf("leaks %v", all)
		}
		if text := all[0].String(); !strings.Contains(text, all[0].File) || !strings.Contains(text, "old: begun 2000-01-01") {
			t.Errorf("text %q", text)
		}
		if _, err := os.Stat(all[0].File); err != nil {
			t.Error(err)
		}
		j.mu.Lock()
		j.entries[fileName("new")].Began = time.Now().Add(time.Hour)
		j.mu.Unlock()
		if n := len(j.Leaks(time.Minute)); n != 2 {
			t.Errorf("%d leaks; one from the future is one too", n)
		}
		busy.Leave()
	})
}

func TestBounds(t *testing.T) {
	j := open(t, t.TempDir(), &Options{Max: 2, MaxSize: 300})
	a := begin(t, j, "a", nil)
	begin(t, j, "b", nil).Leave()
	if _, err := j.Begin("c", nil); !errors.Is(err, ErrFull) {
		t.Errorf("a third of two: %v", err)
	}
	begin(t, j, "b", nil).Leave()
	big := strings.Repeat("x", 300)
	if err := a.Update(big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large update: %v", err)
	}
	if err := a.Finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Begin("c", big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large record: %v", err)
	}
	if in := begin(t, j, "c", nil); in.Earlier() {
		t.Error("what was refused is there")
	}
}

func TestNoSecrets(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	begin(t, j, "a", map[string]any{
		"password": backends.NewSecret("canary"),
		"all":      backends.NewSecrets(map[string]string{"k": "canary"}),
	}).Leave()
	b, err := os.ReadFile(files(t, j)[0])
	if err != nil || bytes.Contains(b, []byte("canary")) {
		t.Errorf("%v: %s", err, b)
	}
	fi, err := os.Stat(files(t, j)[0])
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if _, err := j.Begin("b", func() {}); err == nil {
		t.Error("a function was written")
	}
	if in := begin(t, j, "b", nil); in.Earlier() {
		t.Error("what was refused is there")
	}
}

func TestConcurrent(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	var wg sync.WaitGroup
	for _, key := range []string{"a", "b", "c"} {
		for range 3 {
			wg.Go(func() {
				for range 20 {
					in, err := j.Begin(key, nil)
					if errors.Is(err, ErrActive) {
						continue
					}
					if err == nil {
						err = errors.Join(in.Update(1), in.Finish())
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Go(func() {
		for range 20 {
			_ = j.Leaks(0)
			if err := j.Replay(t.Context(), func(_ context.Context, in *Intent) error { return in.Finish() }); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if left := files(t, j); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
