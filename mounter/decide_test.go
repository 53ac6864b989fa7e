package mounter

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// What devices hold.
var (
	blank      = blockdev.Content{State: blockdev.Blank}
	ext4       = blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Clean: true, Offset: 1080}
	dirtyExt4  = blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Errors: true, Offset: 1080}
	xfs        = blockdev.Content{State: blockdev.Filesystem, Type: "xfs", Clean: true}
	halfXFS    = blockdev.Content{State: blockdev.Filesystem, Type: "xfs", InProgress: true}
	ntfs       = blockdev.Content{State: blockdev.Filesystem, Type: "ntfs", Clean: true}
	gpt        = blockdev.Content{State: blockdev.Foreign, Type: "gpt", Offset: 512}
	unknown    = blockdev.Content{State: blockdev.Unknown, Offset: 70000}
	unprobed   = blockdev.Content{}
	allContent = []blockdev.Content{blank, ext4, dirtyExt4, xfs, halfXFS, ntfs, gpt, unknown, unprobed}
)

// What is remembered.
var (
	started = &formatRecord{State: formatStarted, FSType: "ext4", BootID: "b", DiskSeq: 7}
	done    = &formatRecord{State: formatDone, FSType: "ext4", BootID: "b", DiskSeq: 7}
)

func TestDecide(t *testing.T) {
	const mount, format, refused = "mount ", "format ", "refuse"
	for _, c := range []struct {
		name string
		e    evidence
		want string
	}{
		{"cut short at its end", evidence{Content: blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: 2 << 20}, Size: 1 << 20}, refused},
		{"as big as its device", evidence{Content: blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: 2 << 20}, Size: 2 << 20}, mount + "ext4"},
		{"blank", evidence{Content: blank}, format + "ext4"},
		{"blank, asked for xfs", evidence{Content: blank, Want: "xfs"}, format + "xfs"},
		{"blank, read-only", evidence{Content: blank, ReadOnly: true}, refused},
		{"blank, done before by the backend's word", evidence{Content: blank, Backend: backends.FormatDone, BackendFSType: "ext4"}, refused},
		{"blank, done before, of no type", evidence{Content: blank, Backend: backends.FormatDone}, refused},
		{"blank, done before by the record", evidence{Content: blank, Record: done}, refused},
		{"blank, done on another instance", evidence{Content: blank, Record: done, SameInstance: true}, refused},
		{"blank, never", evidence{Content: blank, Backend: backends.FormatNever}, format + "ext4"},
		{"blank, started", evidence{Content: blank, Backend: backends.FormatStarted, BackendFSType: "xfs"}, format + "ext4"},
		{"blank, an unknown type", evidence{Content: blank, Want: "zfs"}, refused},

		{"file system", evidence{Content: ext4}, mount + "ext4"},
		{"file system with errors", evidence{Content: dirtyExt4}, mount + "ext4"},
		{"file system, default is another", evidence{Content: xfs}, mount + "xfs"},
		{"file system, read-only", evidence{Content: xfs, ReadOnly: true}, mount + "xfs"},
		{"file system, as asked", evidence{Content: xfs, Want: "xfs"}, mount + "xfs"},
		{"file system, other asked", evidence{Content: ext4, Want: "xfs"}, refused},
		{"file system, done", evidence{Content: ext4, Backend: backends.FormatDone, BackendFSType: "ext4"}, mount + "ext4"},
		{"file system, done of no type", evidence{Content: ext4, Backend: backends.FormatDone}, mount + "ext4"},
		{"file system, other done", evidence{Content: xfs, Backend: backends.FormatDone, BackendFSType: "ext4"}, refused},
		{"file system, other recorded", evidence{Content: xfs, Record: done}, refused},
		{"file system, never", evidence{Content: ext4, Backend: backends.FormatNever}, refused},
		{"file system, never, read-only", evidence{Content: ext4, Backend: backends.FormatNever, ReadOnly: true}, refused},
		{"file system, never, but done here", evidence{Content: ext4, Backend: backends.FormatNever, Record: done}, mount + "ext4"},
		{"file system, never, but started here", evidence{Content: ext4, Backend: backends.FormatNever, Record: started, SameInstance: true}, mount + "ext4"},
		{"file system, never, started on another instance", evidence{Content: ext4, Backend: backends.FormatNever, Record: started}, refused},
		{"file system, started", evidence{Content: ext4, Backend: backends.FormatStarted, BackendFSType: "ext4"}, mount + "ext4"},
		{"file system with errors, started", evidence{Content: dirtyExt4, Record: started, SameInstance: true}, mount + "ext4"},
		{"file system, other started", evidence{Content: xfs, Backend: backends.FormatStarted, BackendFSType: "ext4"}, refused},
		{"file system, other started here", evidence{Content: xfs, Record: started, SameInstance: true}, refused},
		{"file system nobody mounts", evidence{Content: ntfs}, refused},

		{"unfinished xfs", evidence{Content: halfXFS}, format + "ext4"},
		{"unfinished xfs, asked for xfs", evidence{Content: halfXFS, Want: "xfs"}, format + "xfs"},
		{"unfinished xfs, done", evidence{Content: halfXFS, Backend: backends.FormatDone, BackendFSType: "xfs"}, refused},
		{"unfinished xfs, read-only", evidence{Content: halfXFS, ReadOnly: true}, refused},

		{"unknown", evidence{Content: unknown}, refused},
		{"unknown, never", evidence{Content: unknown, Backend: backends.FormatNever}, format + "ext4"},
		{"unknown, never, read-only", evidence{Content: unknown, Backend: backends.FormatNever, ReadOnly: true}, refused},
		{"unknown, never, but done here", evidence{Content: unknown, Backend: backends.FormatNever, Record: done}, refused},
		{"unknown, started", evidence{Content: unknown, Backend: backends.FormatStarted, BackendFSType: "ext4"}, format + "ext4"},
		{"unknown, started, but done here", evidence{Content: unknown, Backend: backends.FormatStarted, Record: done}, refused},
		{"unknown, started here", evidence{Content: unknown, Record: started, SameInstance: true}, format + "ext4"},
		{"unknown, started here, done in the backend", evidence{Content: unknown, Record: started, SameInstance: true, Backend: backends.FormatDone}, refused},
		{"unknown, started on another instance", evidence{Content: unknown, Record: started}, refused},
		{"unknown, done", evidence{Content: unknown, Backend: backends.FormatDone, BackendFSType: "ext4"}, refused},
		{"unknown, done here", evidence{Content: unknown, Record: done, SameInstance: true}, refused},

		{"foreign", evidence{Content: gpt}, refused},
		{"foreign, never", evidence{Content: gpt, Backend: backends.FormatNever}, refused},
		{"foreign, started", evidence{Content: gpt, Backend: backends.FormatStarted, BackendFSType: "ext4"}, refused},
		{"foreign, started here", evidence{Content: gpt, Record: started, SameInstance: true}, refused},

		{"a probe that did not say", evidence{Content: unprobed}, refused},
		{"a probe that did not say, never", evidence{Content: unprobed, Backend: backends.FormatNever}, refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.e.Device, c.e.DefaultFS = "/dev/x", "ext4"
			v, err := decide(c.e)
			got := mount + v.FSType
			switch {
			case err != nil:
				got = refused
			case v.Format:
				got = format + v.FSType
			}
			if got != c.want {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

// TestDecideNeverInDoubt walks every combination of evidence: what holds in all
// of them is what users trust their disks to.
func TestDecideNeverInDoubt(t *testing.T) {
	states := []backends.FormatState{backends.FormatUnknown, backends.FormatNever, backends.FormatStarted, backends.FormatDone}
	n := 0
	for _, c := range allContent {
		for _, b := range states {
			for _, bt := range []string{"", "ext4", "xfs"} {
				for _, r := range []*formatRecord{nil, started, done} {
					for i := range 4 {
						for _, want := range []string{"", "ext4", "xfs", "zfs"} {
							n++
							checkVerdict(t, evidence{
								Device: "/dev/x", Content: c, Backend: b, BackendFSType: bt, Record: r,
								SameInstance: i&1 != 0, ReadOnly: i&2 != 0, Want: want, DefaultFS: "ext4",
							})
						}
					}
				}
			}
		}
	}
	t.Logf("%d combinations", n)
}

func checkVerdict(t *testing.T, e evidence) {
	t.Helper()
	v, err := decide(e)
	if err != nil {
		if !errors.Is(err, backends.ErrPrecondition) && !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%+v: refused with %v", e, err)
		}
		return
	}
	fail := func(why string) { t.Errorf("%s: %+v gave %+v", why, e, v) }
	finished := e.Backend == backends.FormatDone || e.Record != nil && e.Record.State == formatDone
	if !v.Format {
		if e.Content.State != blockdev.Filesystem || e.Content.Type != v.FSType || e.Content.InProgress {
			fail("mounts what is not there")
		}
		ours := finished || e.Record == started && e.SameInstance
		if e.Backend == backends.FormatNever && !ours {
			fail("shows what somebody else left")
		}
		return
	}
	switch {
	case finished:
		fail("formats what was finished once")
	case e.ReadOnly:
		fail("formats for a reader")
	case e.Content.State == blockdev.Foreign:
		fail("formats what belongs to something else")
	case e.Content.State == blockdev.Filesystem && !e.Content.InProgress:
		fail("formats a file system")
	case e.Content.State == blockdev.Unknown && e.Backend != backends.FormatNever && e.Backend != backends.FormatStarted &&
		(e.Record != started || !e.SameInstance):
		fail("formats data that nobody vouches for")
	case e.Content.State == 0:
		fail("formats what was not probed")
	}
}

// TestRefusalsHelp: every refusal says which device, what was read and where,
// and how to go on.
func TestRefusalsHelp(t *testing.T) {
	for _, c := range []blockdev.Content{gpt, unknown, ntfs} {
		_, err := decide(evidence{Device: "/dev/sdx", Content: c, DefaultFS: "ext4"})
		for _, want := range []string{"/dev/sdx", fmt.Sprintf("byte %d", c.Offset), c.Type, "wipefs", "by hand"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the refusal does not say %q: %v", c, want, err)
			}
		}
	}
}
