package csidriver

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	redacted = "[redacted]"
	// serviceAccountTokens is the key under which kubelet puts tokens into
	// volume_context, which CSI does not mark as secret.
	serviceAccountTokens = "csi.storage.k8s.io/serviceAccount.tokens"
	// minSecret is the shortest value that is taken out of free text: less is no
	// secret, and half of the text would go.
	minSecret = 4
)

// redactor prints protobuf messages without their secrets, and takes the secrets
// of a message out of a text. It reads messages in place.
type redactor struct {
	plans sync.Map // protoreflect.FullName -> []field
}

// field is what a message type says about one of its fields, looked up once.
type field struct {
	protoreflect.FieldDescriptor
	name   string
	secret bool // csi_secret, or mount_flags, which may hold credentials
}

func (r *redactor) plan(d protoreflect.MessageDescriptor) []field {
	if p, ok := r.plans.Load(d.FullName()); ok {
		return p.([]field)
	}
	fds := d.Fields()
	p := make([]field, fds.Len())
	for i := range p {
		fd := fds.Get(i)
		p[i] = field{fd, string(fd.Name()), isSecret(fd)}
	}
	r.plans.Store(d.FullName(), p)
	return p
}

func isSecret(fd protoreflect.FieldDescriptor) bool {
	if fd.Name() == "mount_flags" {
		return true
	}
	marked, _ := proto.GetExtension(fd.Options(), csi.E_CsiSecret).(bool)
	return marked
}

// text prints m on one line. Fields that this version of CSI does not know are
// left out: nobody knows what they hold.
func (r *redactor) text(m proto.Message) string {
	return string(r.message(make([]byte, 0, 512), m.ProtoReflect()))
}

func (r *redactor) message(b []byte, m protoreflect.Message) []byte {
	b = append(b, '{')
	first := true
	for _, f := range r.plan(m.Descriptor()) {
		if !m.Has(f.FieldDescriptor) {
			continue
		}
		if !first {
			b = append(b, ' ')
		}
		first = false
		b = append(append(b, f.name...), ':')
		b = r.field(b, f, m.Get(f.FieldDescriptor))
	}
	return append(b, '}')
}

func (r *redactor) field(b []byte, f field, v protoreflect.Value) []byte {
	switch {
	case f.IsMap():
		return r.mapField(b, f, v.Map())
	case f.IsList():
		b = append(b, '[')
		for i := range v.List().Len() {
			if i > 0 {
				b = append(b, ' ')
			}
			b = r.value(b, f.FieldDescriptor, f.secret, v.List().Get(i))
		}
		return append(b, ']')
	default:
		return r.value(b, f.FieldDescriptor, f.secret, v)
	}
}

func (r *redactor) mapField(b []byte, f field, m protoreflect.Map) []byte {
	type entry struct {
		key   string
		value protoreflect.Value
	}
	entries := make([]entry, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		entries = append(entries, entry{k.String(), v})
		return true
	})
	slices.SortFunc(entries, func(x, y entry) int { return strings.Compare(x.key, y.key) })
	b = append(b, '{')
	for i, e := range entries {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(appendText(b, e.key), ':')
		b = r.value(b, f.MapValue(), f.secret || e.key == serviceAccountTokens, e.value)
	}
	return append(b, '}')
}

func (r *redactor) value(b []byte, fd protoreflect.FieldDescriptor, secret bool, v protoreflect.Value) []byte {
	if secret {
		return append(b, redacted...)
	}
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return r.message(b, v.Message())
	case protoreflect.StringKind:
		return appendText(b, v.String())
	case protoreflect.BytesKind:
		return append(strconv.AppendInt(append(b, '<'), int64(len(v.Bytes())), 10), " bytes>"...)
	case protoreflect.EnumKind:
		if e := fd.Enum().Values().ByNumber(v.Enum()); e != nil {
			return append(b, e.Name()...)
		}
		return strconv.AppendInt(b, int64(v.Enum()), 10)
	default:
		return append(b, v.String()...)
	}
}

func appendText(b []byte, s string) []byte { return strconv.AppendQuote(b, clip(s, maxLogged)) }

// scrub takes every secret of a request out of a text that somebody else wrote:
// the error of a handler that repeats what a tool printed, the value of a panic.
func (r *redactor) scrub(req any, text string) string {
	m, ok := req.(proto.Message)
	if !ok || text == "" {
		return text
	}
	var found []string
	r.secrets(m.ProtoReflect(), func(s string) { found = appendForms(found, s) })
	found = slices.DeleteFunc(found, func(s string) bool { return !strings.Contains(text, s) })
	if len(found) == 0 {
		return text
	}
	// The longest first: one secret may be a part of another.
	slices.SortFunc(found, func(x, y string) int { return len(y) - len(x) })
	pairs := make([]string, 0, 2*len(found))
	for _, s := range found {
		pairs = append(pairs, s, redacted)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// secrets calls yield with every secret string in m.
func (r *redactor) secrets(m protoreflect.Message, yield func(string)) {
	for _, f := range r.plan(m.Descriptor()) {
		if !m.Has(f.FieldDescriptor) {
			continue
		}
		v := m.Get(f.FieldDescriptor)
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				r.secretsOf(f.MapValue(), f.secret || k.String() == serviceAccountTokens, v, yield)
				return true
			})
		case f.IsList():
			for i := range v.List().Len() {
				r.secretsOf(f.FieldDescriptor, f.secret, v.List().Get(i), yield)
			}
		default:
			r.secretsOf(f.FieldDescriptor, f.secret, v, yield)
		}
	}
}

func (r *redactor) secretsOf(fd protoreflect.FieldDescriptor, secret bool, v protoreflect.Value, yield func(string)) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		r.secrets(v.Message(), yield)
	case protoreflect.StringKind:
		if secret {
			yield(v.String())
		}
	}
}

// appendForms adds the shapes in which a secret may turn up in a text: whole,
// quoted, one line of several, the value of an option, the token inside the JSON
// of kubelet.
func appendForms(forms []string, secret string) []string {
	add := func(s string) {
		if s = strings.TrimSpace(s); len(s) >= minSecret && !plainOption[s] && !slices.Contains(forms, s) {
			forms = append(forms, s)
		}
	}
	add(secret)
	quoted := strconv.Quote(secret)
	add(quoted[1 : len(quoted)-1])
	for line := range strings.Lines(secret) {
		add(line)
	}
	for option := range strings.SplitSeq(secret, ",") {
		if _, value, ok := strings.Cut(option, "="); ok {
			add(option)
			add(strings.Trim(value, `"`))
		}
	}
	var tokens map[string]struct{ Token string }
	if strings.HasPrefix(secret, "{") && json.Unmarshal([]byte(secret), &tokens) == nil {
		for _, t := range tokens {
			add(t.Token)
		}
	}
	return forms
}

// plainOption are mount options that are words of the kernel and no secret:
// an error that names one may keep it.
var plainOption = map[string]bool{
	"bind": true, "rbind": true, "move": true, "loop": true, "remount": true, "defaults": true, "auto": true, "noauto": true,
	"sync": true, "async": true, "exec": true, "noexec": true, "suid": true, "nosuid": true, "nodev": true,
	"atime": true, "noatime": true, "diratime": true, "nodiratime": true, "relatime": true, "norelatime": true, "strictatime": true,
	"lazytime": true, "nolazytime": true, "dirsync": true, "mand": true, "nomand": true, "discard": true, "nodiscard": true,
	"nouuid": true, "norecovery": true, "noload": true, "nofail": true, "_netdev": true, "nosymfollow": true,
	"hard": true, "soft": true, "nolock": true, "private": true, "shared": true, "slave": true, "unbindable": true,
}
