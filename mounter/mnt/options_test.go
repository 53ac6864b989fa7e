package mnt

import (
	"errors"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

func TestParseOptions(t *testing.T) {
	tests := []struct {
		flags []string
		want  Options
	}{
		{nil, Options{}},
		{[]string{"", ",,", "defaults,_netdev,nofail,x-systemd.automount,comment=a"}, Options{}},
		{[]string{"ro"}, Options{ReadOnly: true}},
		{[]string{"ro,rw"}, Options{}},
		{[]string{"rw", "ro"}, Options{ReadOnly: true}},
		{[]string{"nosuid,nodev", "noexec"}, Options{Attr: AttrNoSUID | AttrNoDev | AttrNoExec}},
		{[]string{"nosuid,nodev,noexec,suid,dev,exec"}, Options{}},
		{[]string{"noatime"}, Options{Attr: AttrNoAtime}},
		{[]string{"noatime,strictatime"}, Options{Attr: AttrStrictAtime}},
		{[]string{"strictatime,noatime"}, Options{Attr: AttrNoAtime}},
		{[]string{"noatime,nodiratime,relatime"}, Options{Attr: AttrNoDirAtime}},
		{[]string{"nosymfollow"}, Options{Attr: AttrNoSymFollow}},
		{[]string{"sync,dirsync,lazytime,mand,silent"}, Options{Super: SuperSync | SuperDirSync | SuperLazyTime | SuperMand | SuperSilent}},
		{[]string{"sync,async,lazytime,nolazytime"}, Options{}},
		{[]string{"discard", "data=ordered,nouuid"}, Options{Data: "discard,data=ordered,nouuid"}},
		{[]string{`context="system_u:object_r:container_file_t:s0:c15,c25",ro`}, Options{ReadOnly: true, Data: `context="system_u:object_r:container_file_t:s0:c15,c25"`}},
		{[]string{`a="1,2",b="",c=`}, Options{Data: `a="1,2",b="",c=`}},
		{[]string{"sync=yes", "user=alice"}, Options{Data: "sync=yes,user=alice"}}, // a file system's own, with a value
	}
	for _, tt := range tests {
		got, err := ParseOptions(tt.flags)
		if err != nil || got != tt.want {
			t.Errorf("ParseOptions(%q) = %+v, %v; want %+v", tt.flags, got, err, tt.want)
		}
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	tests := []string{
		"bind", "rbind", "remount", "move", "shared", "rshared", "slave", "rslave", "private", "rprivate",
		"unbindable", "runbindable", "ro,bind", "loop", "loop=/dev/loop0", "helper=x", "uhelper=x", "user", "users",
		"owner", "group", "rw=1", "ro=vfs", "ro=", `rw="a,b"`, "X-mount.mkdir", "X-mount.subdir=canary", "a\x00b", "ro\x00", `context="canary,c2`, `"`,
		"canary=" + strings.Repeat("x", 4090), strings.Repeat("ro,", 1366),
	}
	for _, f := range tests {
		_, err := ParseOptions([]string{f})
		if !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("ParseOptions(%.40q): %v, want ErrInvalid", f, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") && !strings.Contains(err.Error(), `"context"`) {
			t.Errorf("ParseOptions(%.40q): the error holds a value: %v", f, err)
		}
	}
	half := strings.Repeat("x", 2048)
	if _, err := ParseOptions([]string{half, half + "y"}); !errors.Is(err, backends.ErrInvalid) {
		t.Errorf("4097 bytes in two elements: %v", err)
	}
}

// Whatever is accepted stays the same when it is cut and joined again, and never
// holds a word that was to be refused.
func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{"ro,noatime", `context="a,b",discard`, "bind", `"`, `a="b`, "x\x00", ",,", `a"b,c"d,e`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOptions([]string{s})
		if err != nil {
			if !errors.Is(err, backends.ErrInvalid) {
				t.Fatalf("%v", err)
			}
			return
		}
		if len(o.Data) > len(s) || strings.ContainsRune(o.Data, 0) {
			t.Fatalf("%q -> %q", s, o.Data)
		}
		again, err := ParseOptions([]string{o.Data})
		if err != nil || again != (Options{Data: o.Data}) {
			t.Fatalf("%q -> %q -> %+v, %v", s, o.Data, again, err)
		}
	})
}

func TestRedact(t *testing.T) {
	const data = `user=bob,password=canary-1,context="a:b,canary-2",discard`
	got := redact("e x: Bad value 'canary-1' for password, a:b,canary-2, user=bob", data)
	if strings.Contains(got, "canary") || !strings.Contains(got, "Bad value '***' for password") {
		t.Errorf("%q", got)
	}
}
