package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

func TestRedactedArgv(t *testing.T) {
	c := Cmd{Env: backends.NewSecrets(map[string]string{"P": "hunter2", "LONG": "hunter2000", "SHORT": "rw"})}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-q", "-L", "my disk", "/dev/loop0", ""}, `t -q -L "my disk" /dev/loop0 ""`},
		{[]string{"--password", "x", "--password=x", "-passphrase", "y"}, "t --password [redacted] --password=[redacted] -passphrase [redacted]"},
		{[]string{"-o", "ro,username=u,password=a,b=c,rw"}, "t -o ro,username=u,password=[redacted]"},
		{[]string{"--secret-key=x", "--apiKey", "x", "TOKEN=x", "-H", "X-Auth-Token: x"}, "t --secret-key=[redacted] --apiKey [redacted] TOKEN=[redacted] -H X-Auth-Token:[redacted]"},
		{[]string{`{"user":"u","password":"x"}`}, `t {"user":"u","password":[redacted]`},
		{[]string{"https://u:p@host/x?y", "http://host/a@b"}, "t https://[redacted]@host/x?y http://host/a@b"},
		{[]string{"--key-file", "/etc/key", "-o", "passwd_file=/etc/x", "--key-size=512"}, "t --key-file /etc/key -o passwd_file=/etc/x --key-size=512"},
		{[]string{"--password", "{file:k}", "password={file:k}", "password=x{file:k}"}, "t --password {file:k} password={file:k} password=[redacted]"},
		{[]string{"x-hunter2-y", "hunter2000", "rw"}, "t x-[redacted]-y [redacted] rw"},
		{[]string{"a\nlevel=ERROR msg=forged"}, `t "a\nlevel=ERROR msg=forged"`},
	} {
		if got := newRedactor(c).argv("t", test.args); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
	long := newRedactor(c).argv("t", []string{strings.Repeat("x", 5000), "b", "c"})
	if len(long) > 2000 || !strings.HasSuffix(long, "[... 2 more]") {
		t.Errorf("%d bytes: %s", len(long), long[len(long)-20:])
	}
}

func TestTail(t *testing.T) {
	r := newRedactor(Cmd{Env: backends.NewSecrets(map[string]string{"KEY": "-----\nline-of-key\n-----"})})
	if got := r.tail([]byte("bad: line-of-key\x00\xff\n\n")); got != "bad: [redacted] ?" {
		t.Errorf("got %q", got)
	}
	if got := r.tail([]byte(strings.Repeat("1\n", 20))); got != "1\n1\n1\n1\n1\n1\n1\n1" {
		t.Errorf("got %q", got)
	}
	if got := r.tail([]byte(strings.Repeat("ä", 5000))); len(got) > maxTail+3 || !strings.HasPrefix(got, "...ä") {
		t.Errorf("got %d bytes, %.10q", len(got), got)
	}
}

// A secret never survives redaction, wherever it stands in whatever arguments.
func FuzzRedact(f *testing.F) {
	f.Add("-o", "password=", ",ro")
	f.Add("--x=", "https://u:", "@h/")
	f.Fuzz(func(t *testing.T, option, before, after string) {
		const secret = "canary-7f3a"
		r := newRedactor(Cmd{Env: backends.NewSecrets(map[string]string{"S": secret})})
		text := before + secret + after
		for _, got := range []string{r.argv("t", []string{option, text}), r.tail([]byte(option + text))} {
			if strings.Contains(got, secret) {
				t.Errorf("%q", got)
			}
		}
	})
}

// What is kept is the beginning and the end, however it was written.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz"), uint8(3), uint8(8))
	f.Fuzz(func(t *testing.T, data []byte, piece, limit uint8) {
		o := &output{max: int(limit) + 2}
		for rest := data; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			if m, err := o.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
			if len(o.head)+len(o.tail) > 2*o.max {
				t.Fatalf("%d bytes kept", len(o.head)+len(o.tail))
			}
		}
		got, cut := o.bytes()
		if cut != (len(data) > o.max) || o.written() != int64(len(data)) {
			t.Fatalf("cut %v of %d, limit %d", cut, len(data), o.max)
		}
		if !cut {
			if !bytes.Equal(got, data) {
				t.Fatalf("got %q", got)
			}
			return
		}
		tail := o.max - o.headMax()
		if !bytes.HasPrefix(got, data[:o.headMax()]) || !bytes.HasSuffix(got, data[len(data)-tail:]) {
			t.Fatalf("got %q of %q", got, data)
		}
	})
}
