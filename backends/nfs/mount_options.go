package nfs

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// mountOptions are options of mount(8) for NFS, each known and once.
type mountOptions struct {
	words []string // as they were given, the last of each kind
}

// optionRule says what an option may be.
type optionRule struct {
	kind   string   // options of one kind replace each other; "": the option's own name
	values []string // one of these
	number bool     // or a number from low to high
	low    int
	high   int
	check  func(string) bool // or what it accepts
}

func numberTo(high int) optionRule { return optionRule{number: true, high: high} }

const maxTime = 1 << 20 // tenths of seconds, or seconds: far beyond what makes sense

// optionRules has every option of nfs(5) that a volume may have. What is missing
// would make another mount than was asked for (addr, mounthost), or runs in the
// background (bg).
func optionRules() map[string]optionRule {
	word := func(kind string) optionRule { return optionRule{kind: kind} }
	versions := optionRule{kind: "vers", values: []string{"3", "4", "4.0", "4.1", "4.2"}}
	security := optionRule{check: func(v string) bool {
		known := []string{"sys", "none", "krb5", "krb5i", "krb5p"}
		return !slices.ContainsFunc(strings.Split(v, ":"), func(f string) bool { return !slices.Contains(known, f) })
	}}
	address := optionRule{check: func(v string) bool { _, err := netip.ParseAddr(v); return err == nil }}
	rules := map[string]optionRule{
		"vers": versions, "nfsvers": versions, "minorversion": {kind: "minorversion", values: []string{"0", "1", "2"}},
		"sec": security, "xprtsec": {values: []string{"none", "tls", "mtls"}},
		"proto": {kind: "proto", values: []string{"tcp", "tcp6", "rdma", "rdma6"}}, "tcp": word("proto"), "rdma": word("proto"),
		"port": {number: true, low: 1, high: 65535}, "clientaddr": address,
		"nconnect": {number: true, low: 1, high: 16}, "max_connect": {number: true, low: 1, high: 16}, "trunkdiscovery": word("trunkdiscovery"), "notrunkdiscovery": word("trunkdiscovery"),
		"hard": word("hard"), "soft": word("hard"), "softerr": word("hard"), "softreval": word("softreval"), "nosoftreval": word("softreval"),
		"timeo": {number: true, low: 1, high: maxTime}, "retrans": numberTo(1000), "retry": numberTo(10000),
		"rsize": {number: true, low: 1024, high: 16 << 20}, "wsize": {number: true, low: 1024, high: 16 << 20}, "bsize": numberTo(16 << 20), "namlen": numberTo(255),
		"actimeo": numberTo(maxTime), "acregmin": numberTo(maxTime), "acregmax": numberTo(maxTime), "acdirmin": numberTo(maxTime), "acdirmax": numberTo(maxTime),
		"ac": word("ac"), "noac": word("ac"), "cto": word("cto"), "nocto": word("cto"), "acl": word("acl"), "noacl": word("acl"),
		"lock": word("lock"), "nolock": word("lock"), "local_lock": {kind: "lock", values: []string{"none", "all", "flock", "posix"}},
		"lookupcache": {values: []string{"all", "none", "pos", "positive"}},
		"rdirplus":    {values: []string{"", "none", "force"}}, "nordirplus": word("rdirplus"),
		"sharecache": word("sharecache"), "nosharecache": word("sharecache"), "fsc": word("fsc"), "nofsc": word("fsc"),
		"migration": word("migration"), "nomigration": word("migration"), "resvport": word("resvport"), "noresvport": word("resvport"),
		"write": {values: []string{"lazy", "eager", "wait"}}, "intr": word("intr"), "nointr": word("intr"), "fg": word("fg"), "sloppy": word("sloppy"),
		"fatal_neterrors": {values: []string{"default", "ENETDOWN", "ENETUNREACH", "ENETDOWN:ENETUNREACH", "none"}},
	}
	for _, w := range []string{
		"ro", "rw", "sync", "async", "noexec", "exec", "nosuid", "nodev", "suid", "dev", "dirsync", "lazytime", "nolazytime",
		"noatime", "atime", "relatime", "norelatime", "strictatime", "nostrictatime", "nodiratime", "diratime",
		"defaults", "_netdev", "nofail", "auto", "noauto", "nosymfollow", "symfollow",
	} {
		rules[w] = word(strings.TrimPrefix(w, "no"))
	}
	for _, w := range []string{"ro", "rw"} {
		rules[w] = word("ro")
	}
	for _, w := range []string{"sync", "async"} {
		rules[w] = word("sync")
	}
	for _, w := range []string{"context", "fscontext", "defcontext", "rootcontext"} {
		rules[w] = optionRule{check: func(v string) bool { return v != "" }}
	}
	for _, v := range []string{"v3", "v4", "v4.0", "v4.1", "v4.2"} {
		rules[v] = word("vers")
	}
	return rules
}

// parseOptions reads lists of mount options, of which later ones win.
func parseOptions(lists ...[]string) (*mountOptions, error) {
	o, rules := &mountOptions{}, optionRules()
	var kinds []string
	for _, list := range lists {
		words, err := mnt.SplitOptions(list)
		if err != nil {
			return nil, err
		}
		for _, w := range words {
			kind, err := checkOption(rules, w)
			if err != nil {
				return nil, err
			}
			if i := slices.Index(kinds, kind); i >= 0 {
				kinds, o.words = slices.Delete(kinds, i, i+1), slices.Delete(o.words, i, i+1)
			}
			kinds, o.words = append(kinds, kind), append(o.words, w)
		}
	}
	return o, nil
}

func checkOption(rules map[string]optionRule, w string) (kind string, err error) {
	name, value, valued := strings.Cut(w, "=")
	r, known := rules[name]
	if !known {
		return "", fmt.Errorf("%w: mount option %q is not one of an NFS volume", backends.ErrInvalid, name)
	}
	ok := false
	switch {
	case !r.number && r.check == nil && len(r.values) == 0:
		ok = !valued
	case r.number:
		n, err := strconv.Atoi(value)
		ok = valued && err == nil && n >= r.low && n <= r.high
	case r.check != nil:
		ok = valued && r.check(strings.Trim(value, `"`))
	default:
		ok = slices.Contains(r.values, value) && (valued || value == "")
	}
	if !ok {
		return "", fmt.Errorf("%w: mount option %q has no such value", backends.ErrInvalid, name)
	}
	if r.kind != "" {
		name = r.kind
	}
	return name, nil
}

// value of the last of the named options; a word alone is its own.
func (o *mountOptions) value(names ...string) string {
	for _, w := range slices.Backward(o.words) {
		name, v, valued := strings.Cut(w, "=")
		if !slices.Contains(names, name) {
			continue
		}
		if valued {
			return v
		}
		return name
	}
	return ""
}

// version that was asked for, "" when any will do, "4" for any of 4.
func (o *mountOptions) version() string {
	v := strings.TrimPrefix(o.value("vers", "nfsvers", "v3", "v4", "v4.0", "v4.1", "v4.2"), "v")
	if minor := o.value("minorversion"); minor != "" && (v == "" || v == "4") {
		return "4." + minor
	}
	return v
}

func (o *mountOptions) rdma() bool {
	return strings.HasPrefix(o.value("proto", "rdma", "tcp"), "rdma")
}

func (o *mountOptions) port() int {
	if n, err := strconv.Atoi(o.value("port")); err == nil {
		return n
	}
	if o.rdma() {
		return 20049
	}
	return 2049
}

// without are the words that are none of the named options.
func (o *mountOptions) without(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(o.words), func(w string) bool {
		name, _, _ := strings.Cut(w, "=")
		return slices.Contains(names, name)
	})
}
