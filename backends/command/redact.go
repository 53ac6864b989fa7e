package command

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

const (
	redacted   = "[redacted]"
	minSecret  = 4       // shorter values would redact everything, and hide nothing
	maxArgv    = 1 << 10 // bytes of a command line in a log or an error
	maxTail    = 1 << 10 // bytes of output in an error
	tailLines  = 8
	maxStdin   = 8 << 10 // a longer input is data, not a secret
	fileMarker = "{file:"
)

// redactor knows the secrets of one run. It is also the writer that sees its
// standard input go by.
type redactor struct {
	values []string // of Env and Files

	mu    sync.Mutex
	stdin bytes.Buffer
	long  bool
}

func newRedactor(c Cmd) *redactor {
	r := &redactor{}
	for _, k := range c.Env.Keys() {
		v, _ := c.Env.Lookup(k)
		r.values = append(r.values, lines(v)...)
	}
	for _, s := range c.Files {
		r.values = append(r.values, lines(s.Reveal())...)
	}
	return r
}

// lines are the value and, of a value of several lines, each of them: a tool
// prints the one that it does not like.
func lines(v string) []string {
	var l []string
	for _, s := range append([]string{v}, strings.Split(v, "\n")...) {
		if s = strings.TrimSpace(s); len(s) >= minSecret {
			l = append(l, s)
		}
	}
	return l
}

// Write remembers a short standard input.
func (r *redactor) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.long = r.long || r.stdin.Len()+len(b) > maxStdin; !r.long {
		r.stdin.Write(b)
	}
	return len(b), nil
}

// scrub takes the run's secrets out of a text.
func (r *redactor) scrub(s string) string {
	values := r.values
	r.mu.Lock()
	if !r.long && r.stdin.Len() > 0 {
		values = append(slices.Clip(values), lines(r.stdin.String())...)
	}
	r.mu.Unlock()
	// The longest first: one may be a part of another.
	values = slices.SortedFunc(slices.Values(values), func(a, b string) int { return len(b) - len(a) })
	for _, v := range values {
		s = strings.ReplaceAll(s, v, redacted)
	}
	return s
}

// exposed is the first argument that is a secret or ends in one (key=secret);
// -1: none.
func (r *redactor) exposed(args []string) int {
	for i, a := range args {
		for _, v := range r.values {
			head, ok := strings.CutSuffix(a, v)
			if ok && (head == "" || strings.ContainsRune("=:,@ ", rune(head[len(head)-1]))) {
				return i
			}
		}
	}
	return -1
}

// argv is a command line that can be shown.
func (r *redactor) argv(path string, args []string) string {
	var b strings.Builder
	b.WriteString(path)
	hide := false // the argument is the value of the option before it
	for i, a := range args {
		if b.Len() > maxArgv {
			b.WriteString(" [... " + strconv.Itoa(len(args)-i) + " more]")
			break
		}
		b.WriteByte(' ')
		b.WriteString(shown(r.redactArg(a, hide)))
		hide = strings.HasPrefix(a, "-") && !strings.ContainsAny(a, "=: ") && sensitive(a)
	}
	return b.String()
}

// redactArg hides the value of a sensitive option, and all that follows in the
// same argument: a value may hold commas, quotes and equal signs.
func (r *redactor) redactArg(a string, hide bool) string {
	if hide && !isFile(a) {
		return redacted
	}
	a = r.scrub(redactURL(a))
	for start := 0; start < len(a); {
		part, _, _ := strings.Cut(a[start:], ",")
		i := strings.IndexAny(part, "=:")
		if i > 0 && i+1 < len(part) && sensitive(part[:i]) && !isFile(part[i+1:]) {
			return a[:start+i+1] + redacted
		}
		start += len(part) + 1
	}
	return a
}

// isFile tells a value that is a secret file's path and nothing else.
func isFile(v string) bool {
	return strings.HasPrefix(v, fileMarker) && strings.IndexByte(v, '}') == len(v)-1
}

// sensitive tells from an option's name that its value is a secret. A name that
// ends in file or path says where one is.
func sensitive(name string) bool {
	n := strings.Map(func(c rune) rune {
		if c == '-' || c == '_' || c == '.' || c == ' ' {
			return -1
		}
		return unicode.ToLower(c)
	}, name)
	for _, s := range []string{"file", "path", "dir", "type", "size"} {
		if strings.HasSuffix(n, s) {
			return false
		}
	}
	for _, s := range []string{"pass", "pwd", "secret", "token", "cred", "authorization", "signature"} {
		if strings.Contains(n, s) {
			return true
		}
	}
	return n == "auth" || n == "pw" || strings.HasSuffix(n, "key")
}

// redactURL hides the user part of a URL: scheme://user:password@host.
func redactURL(a string) string {
	scheme, rest, ok := strings.Cut(a, "://")
	if !ok {
		return a
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		rest = redacted + rest[at:]
	}
	return scheme + "://" + rest
}

// shown quotes an argument that a reader could take for two, or that would
// break a line of log.
func shown(a string) string {
	if len(a) > maxArgv {
		a = a[:maxArgv] + "..."
	}
	if a == "" || strings.ContainsFunc(a, func(c rune) bool { return c <= ' ' || c == unicode.ReplacementChar || !unicode.IsPrint(c) }) {
		return strconv.Quote(a)
	}
	return a
}

// tail is the last lines of an output, without secrets and control characters.
func (r *redactor) tail(b []byte) string {
	s := strings.ToValidUTF8(r.scrub(string(b)), "?")
	s = strings.Map(func(c rune) rune {
		if c != '\n' && unicode.IsControl(c) {
			return ' '
		}
		return c
	}, s)
	l := strings.Split(strings.TrimSpace(s), "\n")
	s = strings.Join(l[max(0, len(l)-tailLines):], "\n")
	if len(s) > maxTail {
		s = "..." + strings.ToValidUTF8(s[len(s)-maxTail:], "")
	}
	return s
}
