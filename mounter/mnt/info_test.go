package mnt

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const text = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 1 0:34 / /a\040b\011c\012d\134e\043 ro,relatime shared:7 master:2 propagate_from:3 unbindable - fuse.sshfs me@host: rw,context="a,b"
38 37 259:1048575 /x//deleted / rw - tmpfs  rw
39 37 0:5 / /w rw - 9p drvfs rw,aname=drvfs;path=C:\;uid=0 x,y="z
`
	want := []Info{
		{ID: 36, Parent: 35, Dev: 98 << 8, Root: "/mnt1", Point: "/mnt2", Options: []string{"rw", "noatime"},
			FSType: "ext3", Source: "/dev/root", Super: []string{"rw", "errors=continue"}},
		{ID: 37, Parent: 1, Dev: 34, Root: "/", Point: "/a b\tc\nd\\e#", Options: []string{"ro", "relatime"}, Shared: true,
			FSType: "fuse.sshfs", Source: "me@host:", Super: []string{"rw", `context="a,b"`}},
		{ID: 38, Parent: 37, Dev: 259<<8 | 0xff | 0xfff00<<12, Root: "/x//deleted", Point: "/", Options: []string{"rw"},
			FSType: "tmpfs", Super: []string{"rw"}},
		{ID: 39, Parent: 37, Dev: 5, Root: "/", Point: "/w", Options: []string{"rw"},
			FSType: "9p", Source: "drvfs", Super: []string{"rw", `aname=drvfs;path=C:\;uid=0 x`, `y="z`}},
	}
	got, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("line %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
	if !got[1].ReadOnly() || got[0].ReadOnly() {
		t.Error("ReadOnly")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{
		"x",
		"36 35 98:0 /mnt1 /mnt2 rw",
		"36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root",
		"36 35 98:0 /mnt1 /mnt2 rw shared:1 ext3 /dev/root rw",
		"y 35 98:0 / / rw - ext3 /dev/root rw",
		"36 y 98:0 / / rw - ext3 /dev/root rw",
		"36 35 98 / / rw - ext3 /dev/root rw",
		"36 35 98:y / / rw - ext3 /dev/root rw",
		"36 35 y:0 / / rw - ext3 /dev/root rw",
	} {
		if got, err := parse([]byte(line + "\n")); err == nil {
			t.Errorf("parse(%q) = %+v", line, got)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		``: ``, `a`: `a`, `\040`: " ", `a\134040b`: `a\040b`, `\`: `\`, `\04`: `\04`, `\08x`: `\08x`,
		`\400`: `\400`, `\377`: "\xff", `\\040`: `\ `, `x\012`: "x\n",
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

// Every name comes back from how the kernel writes it.
func FuzzMountinfo(f *testing.F) {
	f.Add("/a b", "rw", "/dev/sda", []byte("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n"))
	f.Add("/\\040\n", "ro,x=\"1,2\"", "", []byte("\n- - -"))
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`)
	f.Fuzz(func(t *testing.T, point, opts, source string, raw []byte) {
		if list, err := parse(raw); err == nil && len(list) > strings.Count(string(raw), "\n")+1 {
			t.Fatalf("%d mounts in %q", len(list), raw)
		}
		line := "1 2 3:4 / " + escape.Replace(point) + " rw shared:1 - ext4 " + escape.Replace(source) + " " + escape.Replace(opts)
		got, err := parse([]byte(line + "\n"))
		if err != nil || len(got) != 1 {
			t.Fatalf("parse(%q) = %+v, %v", line, got, err)
		}
		if got[0].Point != point || got[0].Source != source || !got[0].Shared || got[0].Dev != 3<<8|4 {
			t.Fatalf("parse(%q) = %+v", line, got)
		}
	})
}
