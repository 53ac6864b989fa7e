package nfs

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

func TestParseOptions(t *testing.T) {
	for _, tc := range []struct{ first, second, want, version string }{
		{"", "", "", ""},
		{"vers=4.1,hard", "nconnect=4", "vers=4.1 hard nconnect=4", "4.1"},
		{"vers=4.1,hard", "nfsvers=4.2,soft", "nfsvers=4.2 soft", "4.2"},
		{"v4.2", "vers=3", "vers=3", "3"},
		{"vers=4,minorversion=1", "", "vers=4 minorversion=1", "4.1"},
		{"ro", "rw", "rw", ""},
		{"noatime,sync", "async,atime", "async atime", ""},
		{`context="u:r:t:s0:c1,c2"`, "ro", `context="u:r:t:s0:c1,c2" ro`, ""},
		{"lock", "local_lock=all", "local_lock=all", ""},
		{"nconnect=16,sec=krb5:krb5p,lookupcache=pos,rsize=1048576,acdirmax=0,nordirplus", "", "nconnect=16 sec=krb5:krb5p lookupcache=pos rsize=1048576 acdirmax=0 nordirplus", ""},
	} {
		o, err := parseOptions([]string{tc.first}, []string{tc.second})
		if err != nil {
			t.Errorf("%q, %q: %v", tc.first, tc.second, err)
			continue
		}
		if got := strings.Join(o.words, " "); got != tc.want || o.version() != tc.version {
			t.Errorf("%q, %q: %q of version %q, want %q of version %q", tc.first, tc.second, got, o.version(), tc.want, tc.version)
		}
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, o := range []string{
		"addr=1.2.3.4", "mounthost=x", "bg", "bind", "remount", "nconnect", "nconnect=0", "nconnect=17", "nconnect=4x", "vers=5", "vers=4.3", "vers",
		"sec=", "sec=plain", "hard=1", "timeo=-1", "port=0", "port=65536", "clientaddr=host", "rsize=1e6", "proto=udp", "xprtsec=yes",
		`context="open`, "ro=1", "suid=", "-o", "unknown", "=", "helper=/bin/sh", "x-systemd.automount", "vers=4.2\n", "loop", "uid=0",
	} {
		if _, err := parseOptions([]string{o}); !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%q: %v", o, err)
		}
	}
}

func TestTries(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	for _, tc := range []struct {
		options string
		first   string
		n       int
	}{
		{"", "vers=4.2 proto=tcp addr=127.0.0.1 clientaddr=127.0.0.1", 6},
		{"vers=4", "vers=4.2 proto=tcp addr=127.0.0.1 clientaddr=127.0.0.1", 6},
		{"vers=4.1,nconnect=2,retry=3,fg", "nconnect=2 vers=4.1 proto=tcp addr=127.0.0.1 clientaddr=127.0.0.1", 2},
		{"minorversion=0,clientaddr=10.0.0.9", "vers=4.0 proto=tcp addr=127.0.0.1 clientaddr=10.0.0.9", 2},
		{"sec=krb5p,vers=4.2", "sec=krb5p vers=4.2 proto=tcp addr=127.0.0.1 clientaddr=127.0.0.1", 2},
		{"sec=krb5i:krb5,xprtsec=mtls", "sec=krb5i:krb5 xprtsec=mtls vers=4.2 proto=tcp addr=127.0.0.1 clientaddr=127.0.0.1", 6},
		{"rdma", "vers=4.2 proto=rdma addr=127.0.0.1 clientaddr=127.0.0.1", 6},
		{"vers=3", "", 0},
	} {
		o, err := parseOptions([]string{tc.options})
		if err != nil {
			t.Fatal(err)
		}
		list := tries(t.Context(), addrs, o)
		if len(list) != tc.n || tc.n > 0 && strings.Join(list[0].words, " ") != tc.first {
			t.Errorf("%q: %v, want %d with %q first", tc.options, list, tc.n, tc.first)
		}
		if tc.n > 0 && !slices.ContainsFunc(list[1].words, func(w string) bool { return strings.HasSuffix(w, "6") && strings.HasPrefix(w, "proto=") }) {
			t.Errorf("%q: IPv6 has a protocol of its own: %v", tc.options, list[1])
		}
	}
}

func TestServerKey(t *testing.T) {
	for _, tc := range [][3]string{
		{"nfs1", "", "nfs1:2049"}, {"fd00::1", "", "[fd00::1]:2049"}, {"[fd00::1]", "port=12049", "[fd00::1]:12049"}, {"nfs1", "rdma", "nfs1:20049/rdma"}, {"", "", ""},
	} {
		o, err := parseOptions([]string{tc[1]})
		if err != nil {
			t.Fatal(err)
		}
		if got := serverKey(tc[0], o); got != tc[2] {
			t.Errorf("%q, %q: %q, want %q", tc[0], tc[1], got, tc[2])
		}
	}
}

// TestApart: a superblock of its own has what nobody else can have.
func TestApart(t *testing.T) {
	own := handle{tag: volumeTag, share: Share{Name: "main"}, key: keyOf("pv")}.String()
	for _, tc := range []struct {
		id, source string
		want       bool
	}{
		{own, "server:/export/team/a", true},
		{"server#export#pvc-6e1f2b9c-0d9b-4a2e-8f6e-0123456789ab##", "server:/export/pvc-6e1f2b9c-0d9b-4a2e-8f6e-0123456789ab", true},
		{"server#export#team#pv#retain", "server:/export/team", false},
		{"server/export##", "server:/export", false},
		{"by-hand", "server:/export", false},
	} {
		if got := apart(backends.MountRemoteRequest{ID: tc.id, Mount: backends.Mount{Source: tc.source}}); (len(got) > 0) != tc.want {
			t.Errorf("%s at %s: %q", tc.id, tc.source, got)
		}
	}
}
