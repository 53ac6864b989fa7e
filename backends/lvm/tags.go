package lvm

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csikit/csikit/backends"
)

// Tags are the only state there is. They are part of the VG's metadata, which lvm
// writes atomically, with a checksum, to every disk of the VG. Each is
// "csi.<key>=<value>" of [A-Za-z0-9_+.=/:!&#-]; lvm allows 1024 characters.
const (
	tagDriver  = "csi.d="   // name of the driver; an LV without it is foreign
	tagVersion = "csi.v="   // of this list: 1
	tagClass   = "csi.c="   // name of the class
	tagKind    = "csi.k="   // v: volume, s: snapshot, t: temporary snapshot, z: what a volume is to grow by
	tagName    = "csi.n="   // name of the volume or snapshot, base64url
	tagState   = "csi.s="   // creating, ready or deleting
	tagPrint   = "csi.f="   // fingerprint
	tagSource  = "csi.src=" // ID of the snapshot or volume that this is a copy of
	tagTime    = "csi.t="   // when it was made, seconds since 1970
	tagFormat  = "csi.fmt=" // <fs>:started, <fs>:done, raw:started, or raw
	tagOffset  = "csi.off=" // how far a wipe, or a copy, came, bytes
	tagMutable = "csi.q="   // <parameter>:<value>, one for each that can be modified
	tagPod     = "csi.e="   // the CO's ID of a pod's inline volume, base64url
	tagLUKS    = "csi.luks" // the volume is encrypted
	tagNonce   = "csi.o="   // of the call that made it
	tagPool    = "csi.p="   // name of the driver that made this thin pool
)

const tagsVersion = 1

// The states. An LV is made, or about to go, in all but one of them.
const (
	stateCreating = "creating"
	stateReady    = "ready"
	stateDeleting = "deleting"
)

const formatRaw = "raw"

var (
	validTag    = regexp.MustCompile(`^[A-Za-z0-9_+.=/:!&#-]+$`)
	validFSType = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
	validPrint  = regexp.MustCompile(`^[a-z0-9.]{0,40}$`)
)

// meta is what the tags of an LV say.
type meta struct {
	Class, Kind, Name, State string
	Fingerprint              string
	Source                   string // ID
	Created                  time.Time
	Format                   string // "", "ext4:started", "ext4:done", "raw"
	Offset                   int64
	Mutable                  map[string]string // as they were asked for last
	Pod                      string            // of an inline volume, the CO's ID; else ""
	Encrypted                bool
	Nonce                    string
	lineage
}

// tags are those of an LV that is made.
func (m *meta) tags(driver string) []string {
	t := []string{
		tagDriver + driver, tagVersion + strconv.Itoa(tagsVersion), tagClass + m.Class, tagKind + m.Kind,
		tagName + base64.RawURLEncoding.EncodeToString([]byte(m.Name)), tagState + m.State,
		tagTime + strconv.FormatInt(m.Created.Unix(), 10),
	}
	for tag, v := range map[string]string{tagPrint: m.Fingerprint, tagSource: m.Source, tagFormat: m.Format, tagNonce: m.Nonce} {
		if v != "" {
			t = append(t, tag+v)
		}
	}
	for k, v := range m.Mutable {
		t = append(t, mutableTag(k, v))
	}
	if m.Pod != "" {
		t = append(t, tagPod+base64.RawURLEncoding.EncodeToString([]byte(m.Pod)))
	}
	if m.Encrypted {
		t = append(t, tagLUKS)
	}
	t = append(t, m.lineage.tags()...)
	slices.Sort(t)
	return t
}

// errForeign says that an LV is not this driver's.
var errForeign = errors.New("foreign")

// decodeTags reads the tags of an LV. One of another driver, or of none, is
// errForeign; what is there and cannot be read is an error with a kind, and never
// not-found.
func decodeTags(driver string, tags []string) (*meta, error) {
	if !slices.Contains(tags, tagDriver+driver) {
		return nil, errForeign
	}
	if _, err := one(tags, tagDriver); err != nil {
		return nil, err // another driver's as well
	}
	version, err := one(tags, tagVersion)
	if err != nil {
		return nil, err
	}
	if v, err := strconv.Atoi(version); err != nil || v != tagsVersion {
		return nil, fmt.Errorf("%w: tags have version %q, this driver knows %d", backends.ErrPrecondition, version, tagsVersion)
	}
	m := &meta{Encrypted: slices.Contains(tags, tagLUKS)}
	var name, created, offset, pod string
	var errs []error
	for tag, v := range map[string]*string{
		tagClass: &m.Class, tagKind: &m.Kind, tagName: &name, tagState: &m.State, tagPrint: &m.Fingerprint,
		tagSource: &m.Source, tagTime: &created, tagOffset: &offset, tagPod: &pod,
		tagNonce: &m.Nonce,
	} {
		var err error
		*v, err = one(tags, tag)
		errs = append(errs, err)
	}
	m.Format = strongest(tags)
	return m, errors.Join(append(errs, m.parse(name, created, offset), m.parsePod(pod), m.parseMutable(tags), m.parseLineage(tags))...)
}

func (m *meta) parse(name, created, offset string) error {
	torn := func(what, v string) error {
		return fmt.Errorf("%w: tag %s%q cannot be read", backends.ErrUnavailable, what, v)
	}
	raw, err := base64.RawURLEncoding.DecodeString(name)
	if err != nil || len(raw) == 0 {
		return torn(tagName, name)
	}
	m.Name = string(raw)
	sec, err := strconv.ParseInt(created, 10, 64)
	if err != nil {
		return torn(tagTime, created)
	}
	m.Created = time.Unix(sec, 0).UTC()
	if offset != "" {
		if m.Offset, err = strconv.ParseInt(offset, 10, 64); err != nil || m.Offset < 0 {
			return torn(tagOffset, offset)
		}
	}
	if !className.MatchString(m.Class) {
		return torn(tagClass, m.Class)
	}
	if m.Kind != kindVolume && m.Kind != kindSnapshot && m.Kind != kindTemp && m.Kind != kindGrowth {
		return torn(tagKind, m.Kind)
	}
	if m.State != stateCreating && m.State != stateReady && m.State != stateDeleting {
		return torn(tagState, m.State)
	}
	return nil
}

func (m *meta) parsePod(pod string) error {
	raw, err := base64.RawURLEncoding.DecodeString(pod)
	if err != nil {
		return fmt.Errorf("%w: tag %s%q cannot be read", backends.ErrUnavailable, tagPod, pod)
	}
	m.Pod = string(raw)
	return nil
}

func (m *meta) parseMutable(tags []string) error {
	for _, t := range tags {
		kv, ok := strings.CutPrefix(t, tagMutable)
		if !ok {
			continue
		}
		k, v, ok := strings.Cut(kv, ":")
		if _, twice := m.Mutable[k]; !ok || twice {
			return fmt.Errorf("%w: tag %q cannot be read", backends.ErrUnavailable, t)
		}
		if m.Mutable == nil {
			m.Mutable = map[string]string{}
		}
		m.Mutable[k] = v
	}
	return nil
}

func mutableTag(name, value string) string { return tagMutable + name + ":" + value }

// one is the value of a tag that is there at most once: lvm changes tags all at a
// time, so that two are somebody else's doing.
func one(tags []string, key string) (value string, err error) {
	n := 0
	for _, t := range tags {
		if v, ok := strings.CutPrefix(t, key); ok {
			value = v
			n++
		}
	}
	if n > 1 {
		return "", fmt.Errorf("%w: tag %s is there %d times", backends.ErrUnavailable, key, n)
	}
	return value, nil
}

// strongest is the format tag that forbids most, should there be several.
func strongest(tags []string) string {
	best, rank := "", 0
	for _, t := range tags {
		v, ok := strings.CutPrefix(t, tagFormat)
		if !ok {
			continue
		}
		r := 3 // done, and whatever this driver does not know
		if strings.HasSuffix(v, ":started") {
			r = 1
		} else if v == formatRaw {
			r = 2
		}
		if r > rank {
			best, rank = v, r
		}
	}
	return best
}

// format is what the contract knows of m.Format.
func (m *meta) format() (state backends.FormatState, fsType string) {
	fs, step, _ := strings.Cut(m.Format, ":")
	switch {
	case m.Format == "" && m.Source != "":
		return backends.FormatUnknown, "" // nobody vouches for a copy
	case m.Format == "":
		return backends.FormatNever, ""
	case step == "started" && fs == formatRaw:
		return backends.FormatStarted, "" // an encrypted device without a file system
	case step == "started":
		return backends.FormatStarted, fs
	case m.Format == formatRaw:
		// Where its user put data no probe knows: it is never formatted.
		return backends.FormatDone, ""
	default:
		return backends.FormatDone, fs
	}
}

// source is what the volume is a copy of.
func (m *meta) source() backends.ContentSource {
	if _, _, ok := splitID(m.Source, kindSnapshot); ok {
		return backends.ContentSource{SnapshotID: m.Source}
	}
	return backends.ContentSource{VolumeID: m.Source}
}

// checkTags refuses what lvm would not take, or would take for something else.
func checkTags(tags []string) error {
	for _, t := range tags {
		if len(t) > 1024 || !validTag.MatchString(t) {
			return fmt.Errorf("%w: tag %q", backends.ErrInvalid, t)
		}
	}
	return nil
}

// addTags are the arguments that put tags on.
func addTags(tags ...string) []string { return tagArgs("--addtag", tags) }

// delTags are the arguments that take tags off.
func delTags(tags ...string) []string { return tagArgs("--deltag", tags) }

func tagArgs(option string, tags []string) (args []string) {
	for _, t := range tags {
		args = append(args, option, t)
	}
	return args
}
