package fusehost

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/csikit/csikit/backends"
)

const (
	maxKept   = 8 << 10 // of what a server writes
	maxShown  = 1 << 10
	shownLast = 8 // lines
	minSecret = 4 // shorter values would redact everything, and hide nothing
	minLeak   = 8 // how long one must be to be looked for in arguments: "true" is none
)

// tail keeps the end of what a server writes.
type tail struct {
	secrets []string // longest first

	mu  sync.Mutex
	b   []byte
	cut bool // the beginning is gone
}

func newTail(secrets []string) *tail {
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return &tail{secrets: secrets}
}

// Write never fails: a server must not end by SIGPIPE because it talks much.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(b)
	if t.b = append(t.b, b[max(0, n-maxKept):]...); len(t.b) > maxKept {
		t.b, t.cut = append(t.b[:0], t.b[len(t.b)-maxKept:]...), true
	}
	return n, nil
}

// String is the last lines, without secrets and control characters. The first line
// that is kept may begin in the middle of a secret, and is left out.
func (t *tail) String() string {
	t.mu.Lock()
	s := string(t.b)
	if t.cut {
		_, s, _ = strings.Cut(s, "\n")
	}
	t.mu.Unlock()
	for _, v := range t.secrets {
		s = strings.ReplaceAll(s, v, "[redacted]")
	}
	s = strings.Map(func(c rune) rune {
		if c != '\n' && unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	l := strings.Split(strings.TrimSpace(s), "\n")
	s = strings.Join(l[max(0, len(l)-shownLast):], "\n")
	if len(s) > maxShown {
		s = "..." + strings.ToValidUTF8(s[len(s)-maxShown:], "")
	}
	return s
}

// secretsOf are the values that must not be seen, and of those of several lines
// each line.
func secretsOf(run *backends.FUSE) []string {
	var all []string
	add := func(v string) {
		for _, s := range append([]string{v}, strings.Split(v, "\n")...) {
			if s = strings.TrimSpace(s); len(s) >= minSecret {
				all = append(all, s)
			}
		}
	}
	for _, k := range run.Env.Keys() {
		v, _ := run.Env.Lookup(k)
		add(v)
	}
	for _, f := range run.Files {
		add(f.Reveal())
	}
	return all
}

// exposed refuses a command line with a secret in it: everybody on the node can
// read it.
func exposed(run *backends.FUSE, args []string) error {
	for _, v := range secretsOf(run) {
		if len(v) < minLeak {
			continue
		}
		for i, a := range args {
			if head, ok := strings.CutSuffix(a, v); ok && (head == "" || strings.ContainsRune("=:,@ ", rune(head[len(head)-1]))) {
				return fmt.Errorf("%w: argument %d of the server holds a secret; give it by Env or Files", backends.ErrInvalid, i+1)
			}
		}
	}
	return nil
}
